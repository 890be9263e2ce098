"""A run's folder is held by one process, and a start that is refused leaves none."""

import fcntl

import pytest

from timix_pl.config.run_dir import claimed, run_name, write_config
from timix_pl.config.schema import RootConfig, Task, TuneConfig, VqaConfig, VqaKind
from timix_pl.core.errors import RunError


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
    """Of another run, with task=vqa; what it holds is not looked at before its run's configuration is."""
    path = tmp_path / "other" / "checkpoints" / "step-00000001.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    write_config(RootConfig(run_dir=str(tmp_path / "other"), task=Task.vqa, vqa=VqaConfig(kind=VqaKind.open)))
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vqa": VqaConfig()}, "vqa.kind=multiple_choice here, open there"),
        ({"vqa": VqaConfig(kind=VqaKind.open, num_answers=7)}, "vqa.num_answers=7 here, 3000 there"),
        ({"tune": TuneConfig(lr_scale=1.0)}, "tune.lr_scale=1 here, 0.1 there"),
        ({"task": Task.pretrain}, "task=pretrain here, vqa there"),
    ],
)
def test_a_checkpoint_of_another_run_goes_on_with_its_task_alone(checkpoint, tmp_path, options, said):
    own = {"task": Task.vqa, "vqa": VqaConfig(kind=VqaKind.open)} | options
    cfg = RootConfig(run_dir=str(tmp_path / "run"), resume=str(checkpoint), **own)
    with pytest.raises(RunError) as refused, claimed(cfg):
        pass
    assert f"resume={checkpoint}: " in str(refused.value) and said in str(refused.value) and "set these as they were" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_goes_on_with_its_task_alone(checkpoint):
    cfg = RootConfig(run_dir=str(checkpoint.parent.parent), task=Task.vqa, vqa=VqaConfig(kind=VqaKind.both, num_answers=7))
    with pytest.raises(RunError, match=r"vqa\.kind=both here, open there; vqa\.num_answers=7 here"), claimed(cfg):
        pass


def test_the_task_of_a_checkpoint_must_be_known(checkpoint, tmp_path):
    (tmp_path / "other" / "config.yaml").unlink()
    with (
        pytest.raises(RunError, match=r"no config\.yaml"),
        claimed(RootConfig(task=Task.vqa, resume=str(checkpoint), run_dir=str(tmp_path))),
    ):
        pass


def test_other_options_than_the_tasks_may_change(checkpoint, tmp_path):
    """It is then looked at: it is no checkpoint."""
    cfg = RootConfig(seed=1, run_dir=str(tmp_path), task=Task.vqa, vqa=VqaConfig(kind=VqaKind.open), resume=str(checkpoint))
    with pytest.raises(RunError, match="not a whole checkpoint"), claimed(cfg):
        pass
