"""What a fine-tuning run takes of the run that it starts from, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest

from timix_pl.config.saved import adopt_init, pretrained_run_of, read_config, run_dir_of
from timix_pl.config.schema import DataConfig, LossConfig, ModelConfig, OptimConfig, PtaConfig, PtaGrad, PtaTeacher, RootConfig
from timix_pl.runs.run_dir import write_config


@pytest.fixture
def pretrained(tmp_path):
    """The configuration of a pre-training run that differs from the defaults in all that matters."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    cfg = RootConfig(
        run_dir=str(folder),
        model=ModelConfig(architecture="timix-tiny", image_size_px=96, patch_dropout=0.3),
        pta=PtaConfig(block=2, weight=3.0),
        loss=LossConfig(kind="siglip", tile_rows=8),
        optim=OptimConfig(lr=1.0),
    )
    write_config(cfg)
    return cfg


def task(init, folder: Path, **options) -> RootConfig:
    return RootConfig(task="vqa", init=str(init), run_dir=str(folder / "run"), **options)


@pytest.mark.parametrize("checkpoint", ["", "checkpoints/last.ckpt"])
def test_the_model_comes_along_and_nothing_else_does(pretrained, tmp_path, checkpoint):
    (tmp_path / "pretrained/checkpoints").mkdir()
    (tmp_path / "pretrained/checkpoints/last.ckpt").touch()
    cfg = task(Path(pretrained.run_dir) / checkpoint, tmp_path)
    assert adopt_init(cfg, set()) == []
    assert (cfg.model, cfg.loss.kind) == (replace(pretrained.model, patch_dropout=0.0), "siglip")
    assert cfg.pta == PtaConfig(block=2)  # its weight is of pre-training
    assert (cfg.optim.lr, cfg.loss.tile_rows, cfg.task) == (OptimConfig().lr, None, "vqa")


def test_what_is_typed_must_say_the_same(pretrained, tmp_path):
    """Of what the model is; what only pre-training uses is another check's."""
    cfg = task(pretrained.run_dir, tmp_path, model=ModelConfig(image_size_px=96, context_length=8), pta=PtaConfig(block=2, weight=1.0))
    found = adopt_init(cfg, {"model", "model.image_size_px", "model.context_length", "pta.block", "pta.weight", "model.patch_dropout"})
    assert [message.partition(":")[0] for message in found] == ["model.architecture=ViT-B-32", "model.context_length=8"]
    assert f"of the model of init={pretrained.run_dir} it is timix-tiny; leave it out" in found[0]
    assert "it is null; leave it out" in found[1]


def test_pretraining_takes_nothing(pretrained):
    cfg = RootConfig(init=pretrained.run_dir)
    assert adopt_init(cfg, set()) == [] and cfg.model == ModelConfig()


def test_a_run_goes_on_when_the_other_is_gone(pretrained, tmp_path):
    cfg = task(pretrained.run_dir, tmp_path)
    adopt_init(cfg, set())
    (tmp_path / "run").mkdir()
    write_config(cfg)
    (tmp_path / "pretrained/config.yaml").unlink()
    (tmp_path / "pretrained").rmdir()
    again = task(pretrained.run_dir, tmp_path)
    assert adopt_init(again, set()) == [] and again == cfg
    (said,) = adopt_init(task("elsewhere", tmp_path), set())
    assert said.startswith("init=elsewhere: there is no such run directory or checkpoint")


def test_what_cannot_be_started_from_is_told(pretrained, tmp_path):
    cfg = task(pretrained.run_dir, tmp_path)
    config = tmp_path / "pretrained/config.yaml"
    for content, said in (
        (config.read_text().replace("task: pretrain", "task: vqa"), "a run with task=vqa; a task starts from a pre-training run"),
        ("seed: [1", "cannot be read: "),
        ("sead: 1", "cannot be read: "),
        (None, "config.yaml; name a run directory of timix-train"),
    ):
        config.unlink() if content is None else config.write_text(content)
        (message,) = adopt_init(cfg, set())
        assert message.startswith(f"init={pretrained.run_dir}: ") and said in message


def test_the_run_directory_of_a_checkpoint(tmp_path):
    sharded = tmp_path / "run/checkpoints/step-00000001.ckpt"
    sharded.mkdir(parents=True)
    assert run_dir_of(sharded) == run_dir_of(tmp_path / "run/checkpoints/gone.ckpt") == run_dir_of(tmp_path / "run") == tmp_path / "run"


def test_a_fine_tuned_run_names_the_one_it_started_from():
    assert pretrained_run_of(RootConfig(init="runs/mine")) == "the run that it started from, init=runs/mine"
    assert pretrained_run_of(RootConfig()) == "a pre-training run"


@pytest.mark.parametrize(("region_shards", "teacher"), [("b", PtaTeacher.boxes), (None, PtaTeacher.mixing)])
def test_a_run_that_has_not_stored_its_teacher_goes_on_with_the_same(region_shards, teacher, tmp_path):
    write_config(RootConfig(run_dir=str(tmp_path), data=DataConfig(train_shards="a", region_shards=region_shards)))
    stored = tmp_path / "config.yaml"
    stored.write_text(stored.read_text().replace("  teacher: null\n", ""))
    assert "teacher" not in stored.read_text()
    assert read_config(stored).pta.teacher is teacher
    assert read_config(stored).pta.grad is (PtaGrad.full if region_shards else PtaGrad.trunk)
