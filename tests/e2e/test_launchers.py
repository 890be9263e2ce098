"""Launchers as people meet them: sweeps whose jobs have several processes, statuses, signals, and one rank's error."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import write_scripts
from tests.e2e.test_preempted import ENDLESS, WORDS, steps_logged, wait_until_it_trains
from tests.preloaded import popen, rank_1_of
from tests.tiny import write_shards

TWO_RANKS = {
    "launcher=local": ["timix-train", "trainer.devices=2"],
    "launcher=torchrun": ["timix-train", "trainer.devices=2", "launcher=torchrun"],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python", "./timix-train", "trainer.devices=null"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "train", 20)
    write_shards(tmp_path / "regions", 8, seed=1, num_regions=2)
    return write_scripts(tmp_path)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    shards = ["data.train_shards=train", "data.region_shards=regions"]
    command = [sys.executable, *words, *WORDS, *(word for word in words if word.startswith("trainer.devices")), *shards]
    return popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


@pytest.mark.parametrize("how", TWO_RANKS)
def test_one_ranks_error_ends_all_with_its_message(how: str, folder: Path) -> None:
    """Rank 1 cannot write its audit log."""
    (folder / "run").mkdir()
    (folder / "run/audit-1.jsonl").symlink_to("/nowhere/audit")
    process = start(folder, *TWO_RANKS[how], "run_dir=run", "data.audit=true", ENDLESS)
    while not (folder / "run/audit-0.jsonl").exists():  # of the first step, which both have made
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    since = time.monotonic()
    status, _, said = end(process)
    assert time.monotonic() - since < 30
    assert status == (1 if how == "torchrun" else 2)  # torchrun's own
    assert said.count("No such file or directory: 'run/audit-1.jsonl'") == 1
    assert said.count("timix-train: rank 1: error:") == 1
    assert "Traceback" not in said or how == "torchrun"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_rank_that_is_killed_is_named(folder: Path) -> None:
    process = start(folder, "timix-train", "trainer.devices=2", "run_dir=run", ENDLESS)
    wait_until_it_trains(process, folder / "run")
    os.kill(rank_1_of(process), signal.SIGKILL)
    status, _, said = end(process)
    assert status == 137, said
    error = "rank 1 was ended by SIGKILL, often because memory ran out; the same command resumes from the last checkpoint"
    assert f"timix-train: error: {error}" in said


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_launcher_reaches_the_ranks(number: signal.Signals, folder: Path) -> None:
    process = start(folder, *TWO_RANKS["launcher=torchrun"], "run_dir=run", ENDLESS)
    wait_until_it_trains(process, folder / "run")
    process.send_signal(number)
    status, _, said = end(process)
    assert status == (130 if number == signal.SIGINT else 75), said
    assert (folder / "run/checkpoints/last.ckpt").exists() and "Traceback" not in said


def test_torchrun_and_the_configuration_must_agree(folder: Path) -> None:
    words = [*TWO_RANKS["torchrun"][:-1], "run_dir=run", ENDLESS]
    wrong = end(start(folder, *words, "trainer.devices=1"))[2]
    assert wrong.count("trainer.devices=1: torchrun started 2 on each machine; set it to 2 or null") == 1
    swept = end(start(folder, *words, "-m", "seed=0,1"))[2]
    assert swept.count("-m: torchrun started 2 processes of this command, and each would run the whole sweep") == 1
    assert not (folder / "run").exists()


def test_a_sweep_of_several_processes_stops_and_goes_on(folder: Path) -> None:
    """Job 0 fails and keeps nobody from running; Ctrl-C ends the job that runs, and the sweep; the same command goes on."""
    (folder / "sweep/0/config.yaml").mkdir(parents=True)
    words = ["timix-train", "-m", "run_dir=sweep", "trainer.devices=2", "seed=0,1,2", "trainer.max_steps=20"]
    process = start(folder, *words)
    wait_until_it_trains(process, folder / "sweep/1")
    process.send_signal(signal.SIGINT)
    status, out, said = end(process)
    assert status == 130 and "The sweep stops at run 1 of 3" in said
    assert "Run 1:" in out and "Run 2:" not in out
    status, out, said = end(start(folder, *words))
    assert status == 2
    assert "resuming from sweep/1/checkpoints/step-" in said
    assert "1 of 3 runs failed: run 0 (sweep/0) with status 2" in said
    assert [steps_logged(folder / f"sweep/{number}") for number in (1, 2)] == [20, 20]
