"""Trained models from disk: what is taken for one, what it gives, and what the export says of its run."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import open_clip
import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from PIL import Image
from torch.testing import assert_close

import timix_pl
from tests.commands import REPOSITORY
from tests.tiny import encoded_image, random_captions, random_images, random_pixels, tiny_model
from tests.unit.evaluation.fakes import Items, item
from timix_pl.building.assemble import load_model
from timix_pl.cli.export import main as export_main
from timix_pl.config.compose import compose
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import ConfigError, ModelError, RunError, ShapeError, TimixError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.evaluation.evaluator import Evaluator
from timix_pl.evaluation.evaluators.linear_probe import LinearProbe
from timix_pl.evaluation.evaluators.noise import Noise
from timix_pl.export.export import export
from timix_pl.export.model_card import Result
from timix_pl.optim.average import WeightAverage
from timix_pl.runs.evaluate import Evaluated, about_evaluations, read_run, told_samples
from timix_pl.runs.export import _shown, export_checkpoint, run_facts
from timix_pl.training.checkpoint_io import save_folder


def config(**changes):
    cfg = compose(["experiment=demo"])
    cfg.model.architecture, cfg.pta.block = "test-nano", 2
    for key, value in changes.items():
        section, _, name = key.partition("__")
        setattr(getattr(cfg, section), name, value)
    return cfg


def checkpoint_of(model, step):
    return {"state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()}, "global_step": step}


def write_run(folder, *, steps=(3, 7), **changes):
    """A run whose checkpoint of step n is ``tiny_model(seed=n)``."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config(**changes))))
    for step in steps:
        torch.save(checkpoint_of(tiny_model(seed=step), step), folder / f"checkpoints/step-{step:08d}.ckpt")
    (folder / "evaluation.json").write_text(json.dumps({"step": 7, "metrics": {"retrieval/mean_recall": 0.5}, "chance": {}}))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a")


def features(model, seed=0):
    images, tokens = random_images(3, seed), model.tokenizer(random_captions(3, seed))
    with torch.no_grad():
        return torch.stack((model.encode_image(images), model.encode_text(tokens)))


def test_a_run_gives_its_newest_whole_checkpoint_and_a_file_gives_itself(run_dir):
    (run_dir / "checkpoints/step-00000009.ckpt").write_bytes(b"cut off")
    assert_close(features(timix_pl.load(run_dir)), features(tiny_model(seed=7).eval()))
    assert_close(features(timix_pl.load(str(run_dir / "checkpoints/step-00000003.ckpt"))), features(tiny_model(seed=3).eval()))


def write_averaged_run(folder):
    """A run whose checkpoint has the weights of seed 1, and in their average those of seed 2."""
    last, average = tiny_model(seed=1), WeightAverage(tiny_model(seed=2), 0.9)
    run_dir = write_run(folder, steps=(), optim__ema=0.9)
    checkpoint = checkpoint_of(last, 7)
    checkpoint["state_dict"] |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    torch.save(checkpoint, run_dir / "checkpoints/step-00000007.ckpt")
    return run_dir


def test_the_last_weights_or_their_average_are_loaded_and_exported(tmp_path):
    run_dir = write_averaged_run(tmp_path / "run")
    last, averaged = (features(tiny_model(seed=seed).eval()) for seed in (1, 2))
    assert_close(features(timix_pl.load(run_dir)), last)
    assert_close(features(timix_pl.load(run_dir, weights="ema")), averaged)
    for weights, wanted in (("last", last), ("ema", averaged)):
        out = tmp_path / weights
        export_main([f"checkpoint={run_dir}", "format=safetensors", f"out={out}", f"weights={weights}"])
        assert_close(features(timix_pl.load(out)), wanted)
        assert ("| `weights` | moving average, optim.ema=0.9 |" in (out / "README.md").read_text()) == (weights == "ema")
    with pytest.raises(RunError, match=r"weights=ema: an export has only one kind of weights"):
        timix_pl.load(tmp_path / "ema", weights="ema")


def test_an_average_that_is_not_there_is_told(run_dir, tmp_path, capsys):
    with pytest.raises(RunError, match=r"there is no moving average of the weights; train with optim\.ema=0\.9999"):
        timix_pl.load(run_dir, weights="ema")
    with pytest.raises(RunError, match=r"weights=mean: choose last or ema"):
        timix_pl.load(run_dir, weights="mean")
    with pytest.raises(SystemExit):
        export_main([f"checkpoint={run_dir}", "format=safetensors", f"out={tmp_path / 'out'}", "weights=mean"])
    assert "weights=mean: choose last or ema" in capsys.readouterr().err


def test_evaluations_and_heat_maps_take_the_weights_that_the_run_evaluates(tmp_path):
    run_dir = write_averaged_run(tmp_path / "run")
    for words, seed in (([], 1), (["evaluation.weights=ema"], 2)):
        cfg, path = read_run(run_dir, words)
        assert_close(features(load_model(cfg, path)[0].eval()), features(tiny_model(seed=seed).eval()))
    for weights, said in (("last", "step 7\n"), ("ema", "step 7, moving average of the weights\n")):
        assert said in Evaluated(run_dir, path, 7, {}, EvaluationResult({}, {}), None, weights).told()


def test_a_folder_of_shards_is_a_checkpoint_too(tmp_path):
    run_dir = write_run(tmp_path / "run", steps=())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        save_folder(checkpoint_of(tiny_model(seed=5), 5), run_dir / "checkpoints/step-00000005.ckpt")
    finally:
        dist.destroy_process_group()
    for path in (run_dir, run_dir / "checkpoints/step-00000005.ckpt"):
        assert_close(features(timix_pl.load(path)), features(tiny_model(seed=5).eval()))
    export_checkpoint(run_dir, {"safetensors": tmp_path / "out"})
    assert_close(features(timix_pl.load(tmp_path / "out")), features(tiny_model(seed=5).eval()))


def test_five_lines_take_pictures_and_words(run_dir):
    model = timix_pl.load(run_dir)
    pictures = [Image.fromarray(random_pixels(40, 60, seed)) for seed in range(2)]
    words = random_captions(2, 0)
    pixels, tokens = torch.stack([model.transform(picture) for picture in pictures]), model.tokenizer(words)
    own = tiny_model(seed=7).eval()
    with torch.no_grad():
        assert_close(model.encode_image(pictures), own.encode_image(pixels))
        assert_close(model.encode_image(pictures[0]), own.encode_image(pixels[:1]))
        assert_close(model.encode_text(words), own.encode_text(tokens))
        assert_close(model.encode_text(words[0]), own.encode_text(tokens[:1]))
        assert_close(model.patch_scores(pictures, tokens), own.patch_scores(pixels, tokens))
        assert_close(model.patch_scores(pictures[0], words), own.patch_scores(pixels[:1].expand(2, -1, -1, -1), tokens))
    assert not model.encode_image(pixels).requires_grad and not model.encoder.training
    with pytest.raises(ShapeError, match="2 images and 3 texts"):
        model.patch_scores(pictures, ["a", "b", "c"])


def test_the_five_lines_of_the_docs_run(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs/exporting.md").read_text()
    write_run(tmp_path / "runs/demo")
    Image.fromarray(random_pixels(40, 60, 0)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0], found)
    assert found["similarity"].shape == (1, 2) and found["heat_maps"].shape == (2, 4, 6)


def test_the_transform_is_that_of_evaluation(run_dir, tmp_path):
    model = timix_pl.load(run_dir)
    image = Image.fromarray(random_pixels(50, 91, 0)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("a", encoded_image(np.asarray(image), "PNG"), "png")
    assert torch.equal(model.transform(image), EvaluationSet(str(tmp_path / "shards"), (32, 48))[0].image)


def test_weights_that_training_started_from_need_not_be_there(tmp_path):
    gone = write_run(tmp_path / "run", model__pretrained="/nowhere/weights.pt")
    assert_close(features(timix_pl.load(gone)), features(tiny_model(seed=7).eval()))


def test_the_statistics_of_a_pretrained_tag_stay(tmp_path, monkeypatch):
    run_dir = write_run(tmp_path / "run", model__pretrained="webli")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"mean": (0.5,) * 3, "std": (0.25,) * 3, "url": "x"})
    model = timix_pl.load(run_dir)
    assert model.encoder.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist() == pytest.approx([2.0] * 3)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere", RunError, "there is no such run directory, checkpoint or export. The nearest existing path"),
        ("empty", RunError, "config.yaml does not exist"),
        ("without", RunError, "no checkpoint there; name a run directory with checkpoints, or a .ckpt file"),
        ("other", RunError, "not a checkpoint of this model"),
        ("other/checkpoints/step-00000001.ckpt", RunError, "not a checkpoint of this model"),
    ],
)
def test_what_is_no_trained_model_is_told(name, error, message, tmp_path):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "without", steps=())
    other = write_run(tmp_path / "other", steps=())
    torch.save(checkpoint_of(tiny_model(with_pta=False), 1), other / "checkpoints/step-00000001.ckpt")
    with pytest.raises(error, match=message):
        timix_pl.load(tmp_path / name)


def test_nothing_heavy_comes_with_the_package_alone():
    code = "import sys, timix_pl; print(timix_pl.__version__, sorted({'torch', 'lightning', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{timix_pl.__version__} []\n"
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = timix_pl.laod


def test_what_can_be_written_is_and_what_cannot_is_told(run_dir, tmp_path):
    with pytest.raises(ModelError, match="images of 32 x 48 pixels"):
        export_checkpoint(run_dir, {"hf": tmp_path / "hf", "open_clip": tmp_path / "open_clip"})
    assert [path.name for path in tmp_path.iterdir()] == ["open_clip"]


def test_several_failures_are_told_together(run_dir, tmp_path, monkeypatch):
    def fails(model, facts, format, out):
        raise ModelError(f"{format} failed")

    monkeypatch.setattr("timix_pl.runs.export.export", fails)
    with pytest.raises(TimixError, match="hf failed\nonnx failed"):
        export_checkpoint(run_dir, {"hf": tmp_path / "hf", "onnx": tmp_path / "onnx"})


def test_folders_that_would_be_lost_are_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds files that are no export"):
        export_checkpoint(tmp_path / "no-run", {"hf": tmp_path / "new", "open_clip": tmp_path / "out"})


def test_the_card_holds_the_run_and_no_secrets(tmp_path):
    shards = "https://me:password@host/a-{000..009}.tar?token=secret"
    run_dir = write_run(
        tmp_path / "demo-run", data__train_shards=[shards, {"path": "s3://b/c", "weight": 2.0}], data__global_batch_size=128
    )
    facts = run_facts(config(data__train_shards=[shards]), run_dir / "checkpoints/step-00000003.ckpt")
    assert (facts.name, facts.step, facts.num_samples) == ("demo", 3, 384)
    assert facts.settings["data.train_shards"] == "[https://host/a-{000..009}.tar]"
    assert facts.settings["model.architecture"] == "test-nano"
    assert facts.results == [Result("retrieval/mean_recall", "50.0%", "-", 7, "scenes (generated)")]
    export(timix_pl.load(run_dir), facts, "safetensors", tmp_path / "out")
    assert "secret" not in (text := (tmp_path / "out/README.md").read_text()) and "password" not in text
    assert json.loads((tmp_path / "out/timix_export.json").read_text())["step"] == 3


def test_the_card_has_names_of_files_and_no_folders(tmp_path):
    home = "/home/me/secret"
    changes = {
        "data__train_shards": [
            f"{home}/a-{{000..009}}.tar",
            {"path": f"{home}/b", "weight": 2.0},
            "s3://bucket/c",
            f"pipe:cat {home}/d.tar",
        ],
        "data__val_shards": "~/secret/val/",
        "data__region_shards": "shards/regions",
        "model__pretrained": f"{home}/weights.pt",
        "model__text_model": "org/text",
    }
    run_dir = write_run(tmp_path / "run", **changes)
    facts = run_facts(config(**changes), run_dir / "checkpoints/step-00000007.ckpt")
    assert facts.settings["data.train_shards"] == "[a-{000..009}.tar,{path: b, weight: 2},s3://bucket/c,pipe:cat d.tar]"
    assert [facts.settings[key] for key in ("data.val_shards", "data.region_shards")] == ["val", "shards/regions"]
    assert [facts.settings[key] for key in ("model.pretrained", "model.text_model")] == ["weights.pt", "org/text"]
    export(timix_pl.load(write_run(tmp_path / "other")), facts, "safetensors", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "secret" not in card and str(tmp_path) not in card


def test_the_card_has_what_was_evaluated_later_newest_first_by_metric(tmp_path):
    run_dir = write_run(tmp_path / "run", data__val_shards="/mine/val", data__kind="shards")
    metrics = {"retrieval/mean_recall": 0.5, "zero_shot/top_1": 0.25}
    (run_dir / "evaluation.json").write_text(json.dumps({"step": 7, "metrics": metrics, "chance": {"retrieval/mean_recall": 0.125}}))
    (run_dir / "evaluate").mkdir()
    about = {"retrieval": {"num_samples": 9, "overrides": [], "data": {"train_shards": "/x/train", "val_shards": "/other/test"}}}
    later = {
        "step": 3,
        "checkpoint": "best.ckpt",
        "evaluations": about,
        "metrics": {"retrieval/mean_recall": 0.75},
        "chance": {"retrieval/mean_recall": 0.5},
    }
    (run_dir / "evaluate/evaluation.json").write_text(json.dumps(later))
    cfg = config(data__val_shards="/mine/val", data__kind="shards", data__zero_shot_shards="/mine/objects")
    assert run_facts(cfg, run_dir / "checkpoints/step-00000003.ckpt").results == [
        Result("retrieval/mean_recall", "75.0%", "50.0%", 3, "test, 9 samples"),
        Result("retrieval/mean_recall", "50.0%", "12.5%", 7, "val"),
        Result("zero_shot/top_1", "25.0%", "-", 7, "objects"),
    ]


def test_the_card_shows_metrics_as_their_evaluator_declares_them(tmp_path):
    run_dir = write_run(tmp_path / "run")
    declared = {"language/perplexity": {"higher_is_better": False}, "language/loss": {"unit": "nats", "higher_is_better": False}}
    metrics = {"language/perplexity": 23.4, "language/loss": 3.15, "language/other": 17.25}
    content = {"step": 7, "metrics": metrics, "chance": {"language/perplexity": 100.0}, "descriptions": declared}
    (run_dir / "evaluation.json").write_text(json.dumps(content))
    export_checkpoint(run_dir, {"safetensors": tmp_path / "out"})
    rows = [line.split(" | ")[:3] for line in (tmp_path / "out/README.md").read_text().splitlines() if line.startswith("| `language/")]
    assert rows == [
        ["| `language/perplexity`", "23.4", "100"],
        ["| `language/loss`", "3.150 nats", "-"],
        ["| `language/other`", "17.2", "-"],
    ]


def labels_of(run_dir, cfg, metrics, about=None):
    """By metric, what the card says of its data."""
    (run_dir / "evaluation.json").unlink()
    (run_dir / "evaluate").mkdir()
    content = {"step": 7, "metrics": dict.fromkeys(metrics, 0.5), "chance": {}} | ({} if about is None else {"evaluations": about})
    (run_dir / "evaluate/evaluation.json").write_text(json.dumps(content))
    return {result.metric: result.data for result in run_facts(cfg, run_dir / "checkpoints/step-00000007.ckpt").results}


def test_each_metric_of_the_card_has_the_data_and_the_count_of_its_own_set(tmp_path):
    data = {f"{name}_shards": f"/mine/{name}" for name in ("train", "val", "noise", "zero_shot", "probe_train")}
    pairs = {"held_out": 9, "train": 1500}
    counts = {"noise": pairs, "mutual_information": pairs, "linear_probe": {"train": 90, "test": 10}, "grounding": 9}
    about = {name: {"num_samples": count, "overrides": [], "data": data} for name, count in counts.items()}
    expected = {
        "noise/held_out/roc_auc": "noise, 9 samples",
        "noise/train/roc_auc": "train, 1,500 samples",
        "mutual_information/held_out": "val, 9 samples",
        "mutual_information/train_mixed": "train, 1,500 samples",
        "mutual_information/train": "train, 1,500 samples",
        "mutual_information/gap": "val, 9 samples; train, 1,500 samples",
        "linear_probe/top_1": "zero_shot, 10 samples",
        "grounding/patch_ap": "val, 9 samples",
    }
    cfg = config(data__kind="shards")
    assert labels_of(write_run(tmp_path / "run"), cfg, expected, about) == expected
    for of in about.values():
        of["num_samples"] = 1509  # of both sets, as earlier versions wrote it
    of_earlier = labels_of(write_run(tmp_path / "earlier"), cfg, expected, about)
    one_set = {"grounding/patch_ap": "val, 1,509 samples"}
    assert of_earlier == {name: re.sub(r", [\d,]+ samples", "", label) for name, label in expected.items()} | one_set


def test_the_data_of_a_plugins_evaluation_are_those_that_it_declares(tmp_path, monkeypatch):
    class Mine(Evaluator):
        gathered: ClassVar = {"labelled": "data.zero_shot_shards", "images": "something else"}

    data = {f"{name}_shards": f"/mine/{name}" for name in ("val", "zero_shot")}
    for name, gathered in (("mine", Mine.gathered), ("other", {"dataset": "data.zero_shot_shards"})):
        monkeypatch.setitem(EVALUATORS._entries, name, type(name, (Mine,), {"gathered": gathered, "choice": name}))
    about = {name: {"num_samples": 9, "overrides": [], "data": data} for name in ("mine", "other")}
    expected = {"mine/gap": "val, 9 samples", "other/gap": "zero_shot, 9 samples"}
    assert labels_of(write_run(tmp_path / "run"), config(data__kind="shards"), expected, about) == expected


def test_training_pairs_alone_are_no_held_out_ones(tmp_path):
    names = ("noise/train/roc_auc", "mutual_information/train", "mutual_information/ceiling")
    cfg = config(data__kind="shards", data__train_shards="/mine/train")
    assert labels_of(write_run(tmp_path / "run"), cfg, names) == dict.fromkeys(names, "train")


@pytest.mark.parametrize(
    ("override", "val", "zero_shot"),
    [
        ("data.num_workers=0", "scenes (generated)", "scenes (generated)"),
        ("data.val_shards=/mine/other", "other", "scenes (generated)"),
        ("data.scenes.num_val=64", "scenes (generated), data.scenes.num_val=64", "scenes (generated), data.scenes.num_val=64"),
        ("data=shards", "other", "objects"),
    ],
)
def test_scenes_are_called_so_unless_other_data_was_evaluated(override, val, zero_shot, tmp_path):
    data = {"val_shards": "/mine/other", "zero_shot_shards": "/mine/objects"}
    about = {name: {"num_samples": 9, "overrides": ["+evaluation.x=1", override], "data": data} for name in ("retrieval", "zero_shot")}
    labels = labels_of(write_run(tmp_path / "run"), config(), ["retrieval/x", "zero_shot/x"], about)
    assert labels == {"retrieval/x": f"{val}, 9 samples", "zero_shot/x": f"{zero_shot}, 9 samples"}


def test_samples_are_counted_by_set():
    items = Items([item(number, ["a"], label=0) for number in range(3)])
    one = SimpleNamespace(choice="retrieval", dataset=items, batch_size=2)
    about = about_evaluations([one, LinearProbe(items, Items(items[:1]), batch_size=2), Noise(None, items, batch_size=2)], config(), [])
    assert [of["num_samples"] for of in about.values()] == [3, {"train": 3, "test": 1}, {"train": 3}]
    assert told_samples(about) == "Samples: retrieval 3, linear_probe 3 train + 1 test, noise 3 train"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/joe/a/{x/1,y/2}.tar", "{x/1,y/2}.tar"),
        ("/home/joe/a/{x/{1,2},y/2}/b-{0..9}.tar", "b-{0..9}.tar"),
        ("{/home/joe/a/1,~/b/2}.tar", "{1,2}.tar"),
        ("/home/joe/my data/x.tar", "x.tar"),
        ("file:///home/joe/x.tar", "x.tar"),
        ("file://localhost/home/joe/x.tar", "x.tar"),
        ("/home/joe", "~"),
        ("s3://bucket/home/joe/x.tar", "s3://bucket/home/joe/x.tar"),
        ("a/{b,c}/x.tar", "a/{b,c}/x.tar"),
        ("pipe:cat /home/joe/a/{x/1,y/2}.tar", "pipe:cat {x/1,y/2}.tar"),
        ("pipe:curl file:///home/joe/x.tar", "pipe:curl x.tar"),
        ("pipe:curl file://localhost/home/joe/x.tar", "pipe:curl x.tar"),
        ("pipe:/home/joe/bin/zcat ~joe/x.gz a/b.gz", "pipe:zcat x.gz a/b.gz"),
        ("pipe:tar --directory /home/joe -cf - .", "pipe:tar --directory ~ -cf - ."),
        ("pipe:tar -C/home/joe/ --exclude=/home/joe/x -cf - .", "pipe:tar -C~ --exclude=x -cf - ."),
        ("pipe:curl https://host/home/{a,b}/x.tar", "pipe:curl https://host/home/{a,b}/x.tar"),
    ],
)
def test_no_form_of_a_path_shows_its_folders(path, shown):
    assert _shown(path) == shown


@pytest.mark.parametrize("saved", ["/home/joe/old", "."])
def test_the_card_is_named_after_the_folder_where_the_run_lies(saved, tmp_path):
    run_dir = write_run(tmp_path / "moved")
    cfg = config()
    cfg.name, cfg.run_dir = "run", saved
    assert run_facts(cfg, run_dir / "checkpoints/step-00000007.ckpt").name == "moved"
    cfg.name = "mine"
    assert run_facts(cfg, run_dir / "checkpoints/step-00000007.ckpt").name == "mine"
