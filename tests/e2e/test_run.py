"""A run through the command line: what it leaves, how it goes on, and what it says when something is wrong."""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.tiny import write_shards
from timix_pl.building import trainer
from timix_pl.cli.evaluate import main as evaluate
from timix_pl.cli.train import main as train
from timix_pl.data.shards.local_tar import write_manifest

SMALL = [
    "model=tiny",
    "trainer=cpu",
    "data.global_batch_size=8",
    "mixing.group_size=4",
    "pta.batch_size=4",
    "data.num_workers=0",
    "trainer.progress_bar=false",
    "trainer.log_every_n_steps=1",
    "trainer.num_threads=1",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "train", 24)
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    write_shards(folder / "val", 10, seed=2, num_regions=1)
    return folder


def arguments(shards: Path, run_dir: Path, *more: str) -> list[str]:
    data = [f"data.{split}_shards={shards / name}" for split, name in (("train", "train"), ("region", "regions"), ("val", "val"))]
    return [*SMALL, *data, f"run_dir={run_dir}", *more]


def without(sections: tuple[str, ...], words: list[str]) -> list[str]:
    """The words but those that set options of these sections, such as ``pta.``: a run that does not use them refuses them."""
    return [word for word in words if not word.startswith(sections)]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        train(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"step-{step:08d}.ckpt", weights_only=True)["state_dict"]


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_behind(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(arguments(shards, run, "trainer.max_steps=4", "checkpoint.every_n_steps=2", "evaluation.every_n_steps=2"))
    said = capsys.readouterr().out
    assert said.strip().endswith(f"{run}/report.html")
    assert "retrieval/mean_recall" in said
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "step-00000002.ckpt",
        "step-00000004.ckpt",
    ]
    assert (run / "checkpoints" / "last.ckpt").resolve().name == "step-00000004.ckpt"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 4
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "4"]
    last = rows(run)[-1]
    names = ["loss/total", "loss/info_nce", "loss/mixed", "loss/patch_text", "mixing/lam", "mixing/gamma", "mixing/side", "pta/precision"]
    names += ["pta/recall", "grad_norm", "logit_scale", "lr", "samples_per_s", "data_wait_frac", "num_skipped_steps", "num_bad_samples"]
    names += ["samples_per_s_per_device", "optimizer_frac", "peak_memory_gb"]
    for name in names:
        assert float(last[f"train/{name}"]) >= 0, name
    assert int(float(last["consumed"])) == 32
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["step"] == 4
    assert evaluation["chance"]["retrieval/text_to_image/recall_at_1"] == pytest.approx(0.1)
    assert evaluation["descriptions"].keys() == evaluation["metrics"].keys()
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    mixed = json.loads((run / "pictures" / "mixed.json").read_text())
    assert len(mixed) == 8 and all((run / "pictures" / entry["mixed"]).exists() for entry in mixed)
    assert len(json.loads((run / "pictures" / "heat_maps.json").read_text())) == 8
    assert "<html" in (run / "report.html").read_text()

    with pytest.raises(SystemExit) as nothing_asked_for_can_run:
        evaluate([f"checkpoint={run}", "evaluation=[vqa]"])
    assert nothing_asked_for_can_run.value.code == 2
    evaluate([f"checkpoint={run}", "evaluation=[retrieval]"])
    assert f"{evaluation['metrics']['retrieval/mean_recall']:.1%}" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(shards: Path, tmp_path: Path) -> None:
    options = ["trainer.max_steps=6", "checkpoint.every_n_steps=2", "checkpoint.keep_last=9", "evaluation.every_n_steps=3"]
    options += ["mixing=timix", "mixing.warmup_frac=0.5", "pta.teacher=both", "pta.first_samples=16"]
    train(arguments(shards, tmp_path / "whole", *options))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", symlinks=True)
    for path in (tmp_path / "cut" / "checkpoints").glob("step-*[456].ckpt"):
        path.unlink()
    (tmp_path / "cut" / "checkpoints" / "step-00000005.ckpt").write_bytes(b"cut off")
    train(arguments(shards, tmp_path / "cut", *options))
    whole, cut = weights(tmp_path / "whole", 6), weights(tmp_path / "cut", 6)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    kept = [name for name in rows(tmp_path / "whole")[0] if name.startswith(("train/loss", "train/lr", "train/mixing", "retrieval"))]
    for a, b in zip(rows(tmp_path / "whole"), rows(tmp_path / "cut"), strict=True):
        assert [a[name] for name in kept] == [b[name] for name in kept]


def test_extending_a_finished_run_keeps_its_schedule(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(arguments(shards, run, "trainer.max_steps=3", "evaluation.tasks=[]"))
    train(arguments(shards, run, "trainer.max_steps=5", "evaluation.tasks=[]"))
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "4", "5"]
    assert float(rows(run)[1]["train/lr"]) > 0
    assert float(rows(run)[4]["train/lr"]) == 0.0


@pytest.mark.parametrize(
    ("unused", "words"),
    [
        (("mixing.", "pta."), ["mixing=none"]),
        (("mixing.group", "pta."), ["mixing.ratio=0", "pta.enabled=false"]),
        (("pta.",), ["mixing=cutmix"]),
        (("pta.",), ["mixing=mixup", "mixing.targets=one_hot"]),
        (("pta.",), ["mixing=mixgen", "mixing.compute=replace"]),
        ((), ["mixing.compute=replace", "mixing.targets=one_hot", "mixing.lam=relevance", "pta.grad=head"]),
        (
            (),
            [
                "loss=siglip",
                "mixing.ratio=0.5",
                "pta.grad=trunk",
                "pta.every_n_steps=2",
                "pta.negative_frac=0.5",
                "pta.caption_positive=true",
            ],
        ),
        ((), ["data=stream", "mixing.stop_frac=1", "pta.first_samples=8"]),
        (("data.region_shards=", "pta."), []),  # pairs only
    ],
    ids=" ".join,
)
def test_every_choice_trains(unused: tuple[str, ...], words: list[str], shards: Path, tmp_path: Path) -> None:
    train([*without(unused, arguments(shards, tmp_path / "run", "trainer.max_steps=2", "evaluation.tasks=[]")), *words])
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2"]
    assert all(0 < float(row["train/loss/total"]) < 100 for row in rows(tmp_path / "run"))


@pytest.fixture(scope="module")
def one_step(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(arguments(shards, folder, "trainer.max_steps=1", "evaluation.tasks=[]"))
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.train_shards={tmp}/nowhere"], ["data.train_shards", "nowhere", "does not exist"]),
        (["data.train_shards={tmp}/*.tar"], ["data.train_shards", "*.tar", "matches no file"]),
        (["model.image_size_px=70"], ["model.image_size_px", "70", "multiple"]),
        pytest.param(
            ["trainer=gpu"],
            ["trainer.accelerator=gpu", "no GPU", "trainer.accelerator=cpu"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["pta.block=9"], ["pta.block=9", "4 blocks"]),
        (["model.image_size_px=8"], ["mixing.min_side", "1 x 1", "too small"]),
        (["resume=never"], ["run_dir", "resume"]),
        (["optim.lr=0.1"], ["another configuration", "optim.lr=0.1 here, 0.0005 there", "run_dir"]),
        (
            ["model.image_size_px=48", "model.context_length=20"],
            ["another configuration", "model.image_size_px=48 here, ", "model.context_length=20 here, null there"],
        ),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_input_gets_one_clear_message(
    words: list[str], expected: list[str], shards: Path, one_step: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = one_step if expected[0] in ("run_dir", "another configuration") else tmp_path / "run"
    words = [word.format(tmp=tmp_path) for word in words]
    said = refusal(arguments(shards, run, "trainer.max_steps=1", "evaluation.tasks=[]", *words), capsys)
    for part in expected:
        assert part in said


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_bad_samples_are_written_down_and_too_many_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = {"captions": ["a box outside"], "regions": [{"phrase": "gone", "bbox_xyxy_norm": [1.2, 0.1, 1.5, 0.5]}]}
    inside = {"captions": ["a box inside"], "regions": [{"phrase": "here", "bbox_xyxy_norm": [0.2, 0.1, 0.9, 0.5]}]}
    samples: dict[str, bytes] = {"tiny.png": png(4, 4), "tiny.txt": b"an image smaller than a patch", "mute.png": png(40, 40)}
    samples |= {"cut.jpg": b"\xff\xd8\xff\xe0 not a jpeg", "cut.txt": b"broken", "latin.png": png(40, 40), "latin.txt": b"caf\xe9"}
    for number in range(12):
        samples |= {f"good{number}.png": png(40, 40), f"good{number}.json": json.dumps(inside).encode()}
    samples |= {"outside.png": png(40, 40), "outside.json": json.dumps(outside).encode()}
    samples |= {"large.png": png(400, 400), "large.txt": b"more pixels than are allowed"}
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write_manifest(folder)
    words = [*SMALL, f"data.train_shards={folder}", f"data.region_shards={folder}", "evaluation.tasks=[]", "trainer.max_steps=10"]
    words.append("data.max_image_px=100000")
    train([*words, f"run_dir={tmp_path / 'run'}", "data.max_bad_frac=0.5"])
    found = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    reasons = {(entry["stream"], entry["key"]): entry["reason"] for entry in found}
    assert "no caption" in reasons["data.train_shards", "mute"]
    assert "smaller than a patch" in reasons["data.train_shards", "tiny"]
    assert "decoded" in reasons["data.train_shards", "cut"]
    assert "UTF-8" in reasons["data.train_shards", "latin"]
    assert reasons["data.train_shards", "large"] == "the image has 400 x 400 pixels, more than data.max_image_px=100000"
    assert "outside" in reasons["data.region_shards", "outside"] or "inside the image" in reasons["data.region_shards", "outside"]
    due = {(entry["stream"], entry["position"]) for entry in found}  # without those drawn in place of another
    assert float(rows(tmp_path / "run")[-1]["train/num_bad_samples"]) == len(due)
    assert {entry["outcome"] for entry in found} == {"replaced"}
    assert all(entry["shard"] == "a.tar" for entry in found)
    said = refusal([*words, f"run_dir={tmp_path / 'other'}", "data.max_bad_frac=0.001"], capsys)
    assert "data.max_bad_frac=0.001" in said and "quarantine.jsonl" in said


def test_a_start_that_failed_leaves_nothing_behind(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(shards, tmp_path / "runs" / "new", "trainer.max_steps=1", "evaluation.tasks=[]", "resume=never")
    refusal([*words, "pta.block=9"], capsys)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new").mkdir()
    refusal([*words, "pta.block=9"], capsys)
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "new"]
    train([*words, "pta.block=1"])
    assert [row["step"] for row in rows(tmp_path / "runs" / "new")] == ["1"]
    assert (tmp_path / "runs" / "new" / ".lock").exists()


def test_steps_asked_for_are_traced_and_mfu_is_logged_where_the_peak_is_known(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    words = without(("mixing.", "pta."), arguments(shards, run, "trainer.max_steps=2", "evaluation.tasks=[]", "trainer.peak_tflops=0.1"))
    words.append("mixing=none")  # fewer events in a trace
    train(words)
    assert not (run / "profile").exists()
    assert 0 < float(rows(run)[-1]["train/mfu"]) < 1
    train([*words, "trainer.max_steps=4", "profile=[2,2]"])  # counted from this start, which goes on
    with gzip.open(run / "profile" / "rank0.pt.trace.json.gz") as file:
        assert {event["name"] for event in json.load(file)["traceEvents"] if event["name"].startswith("step ")} == {"step 4"}
    assert f"{run}/profile/rank0.pt.trace.json.gz: open it at https://ui.perfetto.dev" in caplog.text


def test_a_model_whose_flops_cannot_be_counted_trains_without_mfu(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("not on shapes alone")

    monkeypatch.setattr(trainer, "count_flops", fails)
    train(arguments(shards, tmp_path / "run", "trainer.max_steps=2", "evaluation.tasks=[]", "trainer.peak_tflops=0.1"))
    assert "train/mfu is left out: the FLOPs of timix-tiny cannot be counted (not on shapes alone)" in caplog.text
    (*_, row) = rows(tmp_path / "run")
    assert row["step"] == "2" and float(row["train/loss/total"]) > 0 and not row.get("train/mfu")


@pytest.mark.parametrize(
    ("monitor", "more", "best", "warned"),
    [
        ("grounding/patch_brier_score", [], min, ""),
        ("grounding/patch_ap", [], max, ""),
        ("grounding/patch_brier_score", ["checkpoint.mode=min"], min, ""),
        ("grounding/patch_brier_score", ["checkpoint.mode=max"], max, "of which lower is better; leave checkpoint.mode out"),
    ],
)
def test_the_best_checkpoint_is_that_of_the_metrics_own_direction(
    monitor: str, more: list[str], best: Callable, warned: str, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("trainer.max_steps=3", "evaluation.tasks=[grounding]", "evaluation.every_n_steps=1", f"checkpoint.monitor={monitor}", *more)
    train(arguments(shards, tmp_path / "run", *words))
    values = {int(row["step"]): float(row[monitor]) for row in rows(tmp_path / "run")}
    assert min(values.values()) < max(values.values())
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt")["global_step"] == best(values, key=values.__getitem__)
    assert ("checkpoint.mode" in caplog.text) == bool(warned) and warned in caplog.text


def test_a_finished_run_shows_its_results_again(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(shards, tmp_path / "run", "trainer.max_steps=1")
    train(words)
    first = capsys.readouterr().out
    train(words)
    assert capsys.readouterr().out == first
    assert "retrieval/mean_recall" in first


def test_a_folder_belongs_to_one_process_at_a_time(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    hold = "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run" / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = refusal(arguments(shards, tmp_path / "run", "trainer.max_steps=1"), capsys)
        other.kill()
    assert f"run_dir={tmp_path / 'run'}" in said and "another process" in said


def test_what_cannot_be_resumed_from_says_why(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = arguments(shards, run, "trainer.max_steps=2", "checkpoint.every_n_steps=1", "evaluation.tasks=[retrieval]")
    train(words)
    capsys.readouterr()
    whole = {path: path.read_bytes() for path in (run / "checkpoints").glob("step-*.ckpt")}
    for path, data in whole.items():
        path.write_bytes(data[:100])
    said = refusal(words, capsys)
    assert f"run_dir={run}: all of its checkpoints are damaged" in said and "step-00000002.ckpt, step-00000001.ckpt" in said
    for path, data in whole.items():
        path.write_bytes(data)
    garbage = tmp_path / "garbage.ckpt"
    garbage.write_bytes(b"not a checkpoint")
    for path, part in (
        (garbage, "not a whole checkpoint"),
        (run / "checkpoints" / "best.ckpt", "holds only weights"),
        (run / "checkpoints" / "step-00000001.ckpt", "step-00000002.ckpt"),
    ):
        said = refusal([*words, f"resume={path}"], capsys)
        assert str(path) in said and part in said
