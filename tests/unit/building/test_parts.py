"""What the configuration builds of data: which samples, and what is said about those left out."""

import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.tiny import IMAGE_SIZE_PX, encoded_image, random_pixels
from timix_pl.building.data import build_stream, evaluation_set, prepare_data
from timix_pl.building.devices import device_peak_flops, precision_of
from timix_pl.building.evaluators import build_evaluators, grounding_set
from timix_pl.building.mixing import build_mixing
from timix_pl.building.model import build_model, check_model, save_memory_and_time
from timix_pl.building.objective import build_objective
from timix_pl.building.optim import build_optim
from timix_pl.building.trainer import _mode
from timix_pl.config.compose import compose, to_root
from timix_pl.config.facts import Resume
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import shard_options
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import ConfigError, DataError, ModelError
from timix_pl.core.sample import Region
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.writer import ShardWriter

PART_SCALES = {"image": 0.5, "text": 2.0, "head": 3.0}
MODEL = SimpleNamespace(image_size_px=IMAGE_SIZE_PX, pta=True)


def config(*overrides):
    return to_root(OmegaConf.merge(OmegaConf.structured(RootConfig), OmegaConf.from_dotlist(list(overrides))))


def test_samples_that_the_index_leaves_out_are_counted_in_the_log(tmp_path, caplog):
    image = encoded_image(random_pixels(40, 60, 0), "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("one.png", image), ("one.txt", b"a"), ("one.txt", b"b"), ("two.txt", b"no image")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    build_stream(config(f"data.train_shards={tmp_path / 'a.tar'}"), "train")
    (message,) = caplog.messages
    assert "data.train_shards: 2 " in message and "timix-data index" in message


def test_large_members_are_refused_as_configured(tmp_path):
    """The image of 14 bytes, on both ways to read it."""
    val_shards(tmp_path / "shards", 1, [])
    cfg = config(f"data.train_shards={tmp_path / 'shards'}", f"data.val_shards={tmp_path / 'shards'}", "data.max_image_mb=1e-5")
    with pytest.raises(BadSampleError, match=r"more than `max_image_mb=1e-05`"):
        build_stream(cfg, "train").reader[0]
    with pytest.raises(BadSampleError, match=r"more than `max_image_mb=1e-05`"):
        evaluation_set(cfg, "val", MODEL)[0]


def val_shards(folder, num_samples, with_boxes):
    with ShardWriter(folder) as writer:
        for number in range(num_samples):
            regions = [Region("a dog", (0.2, 0.2, 0.8, 0.8))] if number in with_boxes else []
            writer.write(f"s{number}", b"not decoded here", "png", captions=["a"], regions=regions)
    return config(f"data.val_shards={folder}")


@pytest.mark.parametrize("mute", [0, 50, 99])
def test_retrieval_on_samples_without_captions_is_refused_at_the_start(tmp_path, mute):
    with ShardWriter(tmp_path / "val") as writer:
        for number in range(100 if mute == 99 else 60):
            captions = [] if number == mute else ["a"]
            writer.write(f"s{number}", b"not decoded here", "png", captions=captions, regions=[Region("a", (0, 0, 1, 1))])
    cfg = config(f"data.val_shards={tmp_path / 'val'}", "evaluation.tasks=[retrieval]")
    with pytest.raises(DataError) as caught:
        build_evaluators(cfg, MODEL)
    for part in (f"data.val_shards: shard-000000.tar: s{mute} has no captions", f"s{mute}.txt", "retrieval out of evaluation.tasks"):
        assert part in str(caught.value)
    cfg.evaluation.tasks = ["grounding"]
    assert len(build_evaluators(cfg, SimpleNamespace(image_size_px=IMAGE_SIZE_PX, pta=True))) == 1


def test_captions_that_cannot_be_read_are_named_at_the_start(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("one.png", b""), ("one.txt", b"caf\xe9")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"a\.tar: one: the caption is not UTF-8 text; repair or remove it"):
        build_evaluators(config(f"data.val_shards={tmp_path / 'a.tar'}", "evaluation.tasks=[retrieval]"), MODEL)


@pytest.mark.parametrize(("with_boxes", "found"), [([0], True), ([50], True), ([], False)])
def test_grounding_falls_back_to_validation_images_with_boxes_and_decodes_none_to_find_out(tmp_path, with_boxes, found):
    grounding = grounding_set(val_shards(tmp_path / "val", 60, with_boxes), MODEL)
    assert (grounding is not None) == found


def test_the_search_for_boxes_looks_at_some_dozens_of_samples_spread_over_the_set(tmp_path, monkeypatch):
    """With shards read in ranges, each is a request."""
    looked_at = []
    monkeypatch.setattr(ShardReader, "regions", lambda self, number: looked_at.append(number) or ())
    assert grounding_set(val_shards(tmp_path / "val", 1000, []), MODEL) is None
    assert 24 <= len(looked_at) <= 100 and looked_at[0] == 0 and looked_at[-1] == 999
    assert max(np.diff(looked_at)) <= min(np.diff(looked_at)) + 1


@pytest.mark.parametrize(
    ("key", "reason"), [("val", "no box was found in the samples of data.val_shards"), ("train", "data.grounding_shards is not set")]
)
def test_the_log_says_why_grounding_is_left_out(tmp_path, caplog, key, reason):
    val_shards(tmp_path / "shards", 60, [])
    cfg = config(f"data.{key}_shards={tmp_path / 'shards'}", "evaluation.tasks=[grounding]")
    assert build_evaluators(cfg, SimpleNamespace(image_size_px=IMAGE_SIZE_PX, pta=True)) == []
    (message,) = caplog.messages
    assert "grounding is left out" in message and reason in message


def test_scenes_fill_in_only_the_shards_that_were_not_given(tmp_path):
    """Those of an evaluation of the demo on other data."""
    small = [f"data.scenes.num_{split}=1" for split in ("train", "regions", "val", "zero_shot")]
    cfg = config("data.kind=scenes", f"data.cache_dir={tmp_path}", "data.zero_shot_shards=elsewhere", *small)
    prepare_data(cfg)
    assert cfg.data.zero_shot_shards == "elsewhere"
    assert cfg.data.val_shards.endswith("/val") and cfg.data.region_shards.endswith("/regions") and cfg.data.train_shards.endswith("/train")


@pytest.mark.parametrize(("chosen", "mode", "warned"), [("null", "max", True), ("max", "max", False), ("min", "min", False)])
def test_a_metric_that_declares_no_direction_is_best_as_it_is_told(chosen, mode, warned, caplog):
    evaluation = SimpleNamespace(evaluators=[SimpleNamespace(choice="mine", title="", metrics={})])
    cfg = config("checkpoint.monitor=mine/score", f"checkpoint.mode={chosen}")
    assert _mode(cfg, evaluation, cfg.checkpoint.monitor) == mode
    assert ("best.ckpt will hold the weights of the largest value" in caplog.text) == warned


def test_grounding_without_any_shards_is_none():
    assert grounding_set(config(), MODEL) is None


def test_what_saves_time_and_memory_comes_from_the_configuration(monkeypatch):
    tiny = "model.architecture=timix-tiny", "pta.block=2"
    plain = build_model(config(*tiny), "meta")
    assert (plain.mixing_level, plain.patch_dropout) == (None, 0)
    model = build_model(config(*tiny, "mixing.level='tokens:3'"), "meta")
    assert model.mixing_level == 3 and build_model(config(*tiny, "model.patch_dropout=0.25"), "meta").patch_dropout == 0.25
    assert build_model(config(*tiny, "mixing.level='tokens:3'", "mixing.kind=none"), "meta").mixing_level is None
    with pytest.raises(ModelError, match=r"mixing\.level=tokens:9: the image tower has 4 blocks"):
        build_model(config(*tiny, "mixing.level='tokens:9'"), "meta")
    save_memory_and_time(config(*tiny), model)
    assert not model.image.checkpointing and all(block._compiled_call_impl is None for block in model.blocks())
    cfg = config(*tiny, "trainer.compile=true", "trainer.gradient_checkpointing=true")
    save_memory_and_time(cfg, model)
    assert model.image.checkpointing and all(block._compiled_call_impl is not None for block in model.blocks())
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(ConfigError, match=r"trainer\.compile=true: there is no C\+\+ compiler no-compiler"):
        save_memory_and_time(cfg, model)


def test_what_batch_normalisation_rules_out_is_refused():
    cfg = config("trainer.micro_batch_size=2", "trainer.strategy=fsdp", "data.global_batch_size=8")
    check_model(cfg, torch.nn.LayerNorm(3), 2)
    with pytest.raises(ConfigError) as caught:
        check_model(cfg, torch.nn.BatchNorm2d(3), 2)
    check_model(config(), torch.nn.BatchNorm2d(3), 2)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["trainer.micro_batch_size=2", "trainer.strategy=fsdp"]


def test_one_process_has_nothing_to_offload():
    with pytest.raises(ConfigError, match=r"trainer\.cpu_offload=true: has no effect with a single process"):
        check_model(config("trainer.cpu_offload=true", "trainer.strategy=fsdp"), torch.nn.LayerNorm(3), 1)


@pytest.mark.parametrize(
    ("words", "gpu", "has_bf16", "chosen"),
    [
        ([], True, True, "bf16_mixed"),
        ([], True, False, "fp32"),  # before Ampere: PyTorch emulates bf16 there, slowly
        ([], False, False, "fp32"),
        (["trainer.accelerator=cpu"], True, True, "fp32"),
        (["trainer.precision=bf16_pure"], True, False, "bf16_pure"),
    ],
)
def test_precision_auto_takes_bf16_where_the_gpu_computes_in_it(words, gpu, has_bf16, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or (gpu and including_emulation))
    assert precision_of(config(*words)) == chosen


def test_the_peak_that_a_user_gives_counts():
    assert device_peak_flops(config("trainer.peak_tflops=2.5")) == 2.5e12
    assert device_peak_flops(config("trainer.accelerator=cpu")) is None


def test_data_that_is_wrong_for_one_evaluation_stops_no_other(tmp_path):
    val_shards(tmp_path / "val", 3, [])
    cfg = config(
        f"data.val_shards={tmp_path / 'val'}", f"data.zero_shot_shards={tmp_path / 'val'}", "evaluation.tasks=[zero_shot,carry_over]"
    )
    problems = {}
    (evaluator,) = build_evaluators(cfg, SimpleNamespace(image_size_px=IMAGE_SIZE_PX, pta=True), problems)
    assert evaluator.choice == "carry_over" and "classes" in problems["zero_shot"]
    with pytest.raises(DataError):
        build_evaluators(cfg, SimpleNamespace(image_size_px=IMAGE_SIZE_PX, pta=True))


@pytest.mark.parametrize("task", ["noise", "mutual_information"])
def test_a_model_of_another_task_is_not_asked_for_pairs(caplog, task):
    cfg = config(f"evaluation.tasks=[{task}]")
    cfg.task = "vqa"
    assert build_evaluators(cfg, MODEL) == []
    assert f"{task} is left out" in caplog.text


def test_a_run_may_go_on_with_other_evaluation_sets():
    assert {option.facts.resume for option in shard_options()} == {Resume.free}


def test_a_task_keeps_the_statistics_of_the_pixels_that_its_model_was_trained_with(tmp_path):
    run_dir = tmp_path / "pretrained"
    run_dir.mkdir()
    saved = compose(["experiment=demo", "model.architecture=ViT-B-16-SigLIP", "model.pretrained=webli"])
    (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(saved)))
    cfg = compose(["task=captioning", "data=scenes", "trainer.max_steps=1", f"init={run_dir}", f"run_dir={tmp_path / 'task'}"])
    assert cfg.model.pretrained == "webli"  # the tag alone knows them; no checkpoint does


def test_the_optimizer_and_its_learning_rates_come_from_the_configuration():
    cfg = config("optim.kind=sgd", "optim.momentum=0.5", *(f"optim.lr_scale.{part}={scale}" for part, scale in PART_SCALES.items()))
    settings, model = build_optim(cfg), build_model(config("model.architecture=timix-tiny", "pta.block=2"), "meta")
    optimizer = settings.optimizer.start(settings.parameter_groups(model, model.parts()), settings.lr)
    scales = {parameter: group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    for part, scale in PART_SCALES.items():
        assert {scales[parameter] for parameter in model.parts()["pta" if part == "head" else part].parameters()} == {scale}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}
    assert build_optim(config("optim.layer_decay=0.5", "optim.ema=0.9")).layer_decay == 0.5
    assert build_optim(config("optim.ema=0.9")).ema == 0.9 and build_optim(config()).ema is None


@pytest.mark.parametrize("name", ["info_nce", "mixed", "patch_text", "total"])
def test_a_term_with_the_name_of_a_part_of_the_loss_is_refused(name):
    cfg = config()
    cfg.loss.terms = [name]
    with pytest.raises(
        ConfigError, match=f"loss.terms: '{name}' is also the name of a part of the loss; register the term under another name"
    ):
        build_objective(cfg, build_model(config("model.architecture=timix-tiny", "pta.block=2"), "meta"))


@pytest.mark.parametrize(("teacher", "teaches", "mosaic_frac"), [("mixing", True, 0.25), ("both", True, 0.25), ("boxes", False, 0.0)])
def test_mixed_images_teach_as_configured(teacher, teaches, mosaic_frac):
    words = ["experiment=demo", f"pta.teacher={teacher}", "pta.first_frac=0.2", "pta.weight=3"]
    cfg = compose([*words, *(["pta.mosaic_frac=0.25"] if teaches else [])])
    mixing, model = build_mixing(cfg, (8, 8)), build_model(cfg)
    assert (mixing.teaches, mixing.mosaic_frac, mixing.first_frac) == (teaches, mosaic_frac, 0.2)
    assert build_objective(cfg, model)._weights["patch_text_mixed"] == 3
    assert TASKS[cfg.task](cfg).workload(model, mixing.mixer).teaches == teaches
    assert model.pta_grad == ("trunk" if teacher == "mixing" else "full")
