"""A run's folder is held by one process, and a start that is refused leaves none."""

import fcntl

import pytest

from timix_pl.config.run_dir import claimed, run_name
from timix_pl.config.schema import RootConfig
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
