"""A run that is told to stop saves a checkpoint first, and goes on from it as if nothing had happened."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from tests.commands import write_scripts
from tests.distributed.spawn import run_on_ranks
from tests.preloaded import popen, rank_1_of
from tests.tiny import write_shards
from tests.web_server import WebServer
from timix_pl.cli.train import main as train
from timix_pl.core.distributed import rank

ENDLESS = "trainer.max_steps=1000000"
WORDS = """model=tiny trainer=cpu trainer.num_threads=1 trainer.log_every_n_steps=1 trainer.progress_bar=false data.num_workers=1
data.global_batch_size=8 mixing.group_size=4 pta.batch_size=4 evaluation.tasks=[] pictures.num_mixed=0 checkpoint.every_n_steps=null
checkpoint.every_n_minutes=null optim.schedule=constant optim.warmup_frac=0 optim.lr=1e-5""".split()  # noqa: SIM905

Start = Callable[..., subprocess.Popen]


def words_for(folder: Path, name: str, *more: str) -> list[str]:
    shards = [f"data.train_shards={folder / 'train'}", f"data.region_shards={folder / 'regions'}", f"run_dir={folder / name}"]
    return [*WORDS, *shards, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preempted")
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    write_scripts(folder)
    return folder


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a run in a process group of its own, as a shell or a batch system does."""
    started = []

    def start(name: str, *more: str, popen: Callable[..., subprocess.Popen] = popen) -> subprocess.Popen:
        command = [sys.executable, folder / "timix-train", *words_for(folder, name, *more)]
        process = popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def steps_logged(run: Path) -> int:
    path = run / "metrics.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def wait_until_it_trains(process: subprocess.Popen, run: Path) -> None:
    while steps_logged(run) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def checkpoint(run: Path, name: str = "last.ckpt") -> dict:
    return torch.load(run / "checkpoints" / name, weights_only=True)


def said_by(process: subprocess.Popen, status: int) -> str:
    """What a run says that ends with a status and without a stack trace."""
    said = process.communicate(timeout=200)[1]
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said


def stopped(number: signal.Signals, status: int, folder: Path, start: Start) -> Path:
    """The folder of a run that was told to stop, saved a checkpoint and said so."""
    run = folder / number.name
    process = start(run.name, ENDLESS)
    wait_until_it_trains(process, run)
    os.killpg(process.pid, number)  # loader processes hear it too
    assert f"{number.name}: the run saves a checkpoint" in said_by(process, status)
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert checkpoint(run)["global_step"] == steps_logged(run)  # no step is lost
    return run


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_and_says_so(number: signal.Signals, status: int, folder: Path, start: Start) -> None:
    stopped(number, status, folder, start)


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(folder: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    run = stopped(signal.SIGTERM, 75, folder, start)
    step = checkpoint(run)["global_step"]
    train(words_for(folder, run.name, f"trainer.max_steps={step + 3}"))
    assert f"resuming from {run}/checkpoints/step-{step:08d}.ckpt" in caplog.text
    train(words_for(folder, "whole", f"trainer.max_steps={step + 3}"))
    ended, unbroken = checkpoint(run)["state_dict"], checkpoint(folder / "whole")["state_dict"]
    assert all(torch.equal(ended[name], unbroken[name]) for name in unbroken)
    assert steps_logged(run) == step + 3


def test_a_run_on_remote_shards_saves_too(folder: Path, start: Start) -> None:
    """Its loader processes come from a fork server, which hears the signal as well. No fork itself: it ends as an interpreter ends."""
    run, server = folder / "remote", WebServer(folder)
    shards = [f"data.train_shards={server.url}/train", f"data.shard_cache_dir={folder / 'cache'}"]
    process = start(run.name, ENDLESS, *shards, popen=subprocess.Popen)
    wait_until_it_trains(process, run)
    os.killpg(process.pid, signal.SIGTERM)
    assert "resource_tracker" not in said_by(process, 75)
    server.stop()
    assert checkpoint(run)["global_step"] == steps_logged(run)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_two_ranks_stop_together(number: signal.Signals, status: int, folder: Path, start: Start) -> None:
    """It is enough that one of them hears it; Ctrl-C reaches all."""
    run = folder / f"two-{number.name}"
    process = start(run.name, ENDLESS, "trainer.devices=2")
    wait_until_it_trains(process, run)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(rank_1_of(process), number)
    said_by(process, status)
    assert checkpoint(run)["global_step"] == steps_logged(run)


def train_until_told(told: set[int], words: list[str]) -> object:
    """The status with which a run ends of which some ranks get SIGTERM when the first step is about to begin."""
    run_stage = Trainer._run_stage

    def tell(self: Trainer) -> object:
        if rank() in told:
            os.kill(os.getpid(), signal.SIGTERM)
        return run_stage(self)

    Trainer._run_stage = tell
    with pytest.raises(SystemExit) as ended:
        train(words)
    return ended.value.code


@pytest.mark.parametrize("told", [{0}, {1}, {0, 1}], ids=["rank 0", "rank 1", "both ranks"])
def test_a_signal_while_two_ranks_start_is_not_forgotten(told: set[int], folder: Path) -> None:
    name = "told-" + "-".join(map(str, sorted(told)))
    assert run_on_ranks(train_until_told, 2, told, words_for(folder, name, ENDLESS, "trainer.devices=2")) == [75, 75]
    assert 1 <= checkpoint(folder / name)["global_step"] <= 3


def test_a_run_that_has_nothing_to_save_yet_ends_at_once(folder: Path, start: Start) -> None:
    process = start("early", ENDLESS)
    while not (folder / "early" / ".lock").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said_by(process, 75)


def test_more_signals_spoil_neither_the_checkpoint_nor_the_status(folder: Path, start: Start) -> None:
    """srun ends ranks that take longer than rank 0 to leave, and a status other than theirs would not requeue the job."""
    process = start("impatient", ENDLESS)
    wait_until_it_trains(process, folder / "impatient")
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert said_by(process, 75).count("SIGTERM: the run saves") == 1
    assert checkpoint(folder / "impatient")["global_step"] == steps_logged(folder / "impatient")


def test_a_second_ctrl_c_stops_at_once(folder: Path, start: Start) -> None:
    process = start("hasty", ENDLESS, "data.global_batch_size=2048", "mixing.group_size=32")  # a step takes seconds
    while not (folder / "hasty" / "summary.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    said_by(process, 130)
    assert not (folder / "hasty" / "checkpoints").exists()
