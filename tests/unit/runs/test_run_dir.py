"""A run's folder is held by one process, and a start that is refused leaves none."""

import fcntl

import pytest
import torch

from timix_pl.config.schema import CaptioningConfig, RootConfig, TuneConfig, TunedTowers, VqaConfig, VqaKind
from timix_pl.config.values import run_name
from timix_pl.core.errors import RunError
from timix_pl.runs.run_dir import claimed, write_config


def test_a_lock_that_another_start_removed_in_the_last_moment_holds_nothing(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(fcntl, "lockf", lambda lock, how: (run / ".lock").unlink())
    with pytest.raises(RunError, match="another process is training there"), claimed(RootConfig(run_dir=str(run))):
        pass


def test_a_run_that_has_begun_keeps_its_folder_whatever_ends_it(tmp_path):
    run = tmp_path / "runs" / "run"
    with pytest.raises(KeyboardInterrupt), claimed(RootConfig(run_dir=str(run))):
        (run / "config.yaml").touch()
        raise KeyboardInterrupt
    assert {path.name for path in run.iterdir()} == {".lock", "config.yaml"}
    with pytest.raises(KeyboardInterrupt), claimed(RootConfig(run_dir=str(tmp_path / "other" / "run"))):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_run_without_a_name_is_called_after_its_folder():
    assert run_name(RootConfig(run_dir="runs/mine")) == "mine" and run_name(RootConfig(name="yours", run_dir="runs/mine")) == "yours"


@pytest.fixture
def checkpoint(tmp_path):
    """Of another run, with task=vqa."""
    path = tmp_path / "other" / "checkpoints" / "step-00000001.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"timix": {}, "optimizer_states": [], "global_step": 1}, path)
    write_config(RootConfig(run_dir=str(tmp_path / "other"), task="vqa", vqa=VqaConfig(kind=VqaKind.open)))
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vqa": VqaConfig()}, "vqa.kind=multiple_choice here, open there"),
        ({"vqa": VqaConfig(kind=VqaKind.open, num_answers=7)}, "vqa.num_answers=7 here, 3000 there"),
        ({"tune": TuneConfig(towers=TunedTowers.all)}, "tune.towers=all here, frozen there"),
        ({"task": "pretrain"}, "task=pretrain here, vqa there"),
    ],
)
def test_a_checkpoint_of_another_run_goes_on_with_its_task_alone(checkpoint, tmp_path, options, said):
    own = {"task": "vqa", "vqa": VqaConfig(kind=VqaKind.open)} | options
    cfg = RootConfig(run_dir=str(tmp_path / "run"), resume=str(checkpoint), **own)
    with pytest.raises(RunError) as refused, claimed(cfg):
        pass
    assert f"resume={checkpoint}: " in str(refused.value) and said in str(refused.value) and "set these as they were" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_goes_on_with_its_task_alone(checkpoint):
    cfg = RootConfig(run_dir=str(checkpoint.parent.parent), task="vqa", vqa=VqaConfig(kind=VqaKind.both, num_answers=7))
    with pytest.raises(RunError, match=r"vqa\.kind=both here, open there; vqa\.num_answers=7 here"), claimed(cfg):
        pass


@pytest.mark.parametrize(
    ("written", "said"), [(None, "there is no"), ("vqa: {kindd: open}", "cannot be read"), ("vqa: [", "cannot be read")]
)
def test_the_task_of_a_checkpoint_must_be_known(checkpoint, tmp_path, written, said):
    (tmp_path / "other" / "config.yaml").unlink()
    if written:
        (tmp_path / "other" / "config.yaml").write_text(written)
    cfg = RootConfig(task="vqa", resume=str(checkpoint), run_dir=str(tmp_path))
    with pytest.raises(RunError, match=rf"resume=.*{said}.*name a checkpoint in the folder of its run"), claimed(cfg):
        pass


def test_a_checkpoint_that_is_not_there_is_told_as_such(tmp_path):
    cfg = RootConfig(task="vqa", resume=str(tmp_path / "step-00000001.ckpt"), run_dir=str(tmp_path / "run"))
    with pytest.raises(RunError, match=r"step-00000001\.ckpt: not a whole checkpoint: .*No such file"), claimed(cfg):
        pass


def test_options_that_have_no_effect_may_differ(tmp_path):
    saved = RootConfig(run_dir=str(tmp_path), task="vqa", tune=TuneConfig(lr_scale=0.2))
    write_config(saved)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.ckpt").touch()
    with pytest.raises(RunError, match="all of its checkpoints are damaged"), claimed(RootConfig(run_dir=str(tmp_path), task="vqa")):
        pass
    with (
        pytest.raises(RunError, match=r"tune\.towers=all here, frozen there; tune\.lr_scale"),
        claimed(RootConfig(run_dir=str(tmp_path), task="vqa", tune=TuneConfig(towers=TunedTowers.all))),
    ):
        pass


def test_other_options_than_the_tasks_may_change(checkpoint, tmp_path):
    cfg = RootConfig(seed=1, run_dir=str(tmp_path), task="vqa", vqa=VqaConfig(kind=VqaKind.open), resume=str(checkpoint))
    with claimed(cfg) as found:
        assert found == checkpoint


def test_the_search_for_captions_may_change(checkpoint):
    run_dir = str(checkpoint.parent.parent)
    write_config(RootConfig(run_dir=run_dir, task="captioning"))
    with claimed(RootConfig(run_dir=run_dir, task="captioning", captioning=CaptioningConfig(num_beams=5))) as found:
        assert found == checkpoint
