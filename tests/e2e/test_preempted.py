"""A run that is told to stop saves a checkpoint first, and goes on from it as if nothing had happened."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.commands import write_scripts
from tests.tiny import write_shards
from tests.web_server import WebServer

NUM_STEPS = 120
WORDS = f"""model=tiny trainer=cpu trainer.num_threads=1 trainer.max_steps={NUM_STEPS} trainer.log_every_n_steps=1
trainer.progress_bar=false data.global_batch_size=8 mixing.group_size=4 pta.batch_size=4 data.num_workers=1 evaluation.tasks=[]
pictures.num_mixed=0 checkpoint.every_n_steps=null checkpoint.every_n_minutes=null optim.schedule=constant optim.lr=1e-5""".split()

Start = Callable[..., subprocess.Popen]


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

    def start(name: str, *more: str) -> subprocess.Popen:
        shards = [f"data.train_shards={folder / 'train'}", f"data.region_shards={folder / 'regions'}", f"run_dir={folder / name}"]
        process = subprocess.Popen(
            [folder / "timix-train", *WORDS, *shards, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background jobs ignore Ctrl-C
        )
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


def rank_1_of(process: subprocess.Popen) -> int:
    """The process that Lightning started beside rank 0."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict:
    """The last checkpoint of a run that nobody stops."""
    shards = [f"data.train_shards={folder / 'train'}", f"data.region_shards={folder / 'regions'}", f"run_dir={folder / 'whole'}"]
    subprocess.run([folder / "timix-train", *WORDS, *shards], check=True, capture_output=True)
    return checkpoint(folder / "whole")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_says_so_and_goes_on(number: signal.Signals, status: int, folder: Path, start: Start, whole: dict) -> None:
    run = folder / number.name
    process = start(number.name)
    wait_until_it_trains(process, run)
    os.killpg(process.pid, number)  # loader processes hear it too
    said = process.communicate(timeout=100)[1]
    assert process.returncode == status, said
    assert "Traceback" not in said and f"{number.name}: the run saves a checkpoint" in said
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    step = checkpoint(run)["global_step"]
    assert step == steps_logged(run) < NUM_STEPS  # no step is lost
    again = start(number.name)
    said = again.communicate(timeout=100)[1]
    assert again.returncode == 0 and f"going on from {run}/checkpoints/step-{step:08d}.ckpt" in said
    ended = checkpoint(run)
    assert all(torch.equal(ended["state_dict"][name], whole["state_dict"][name]) for name in whole["state_dict"])
    assert steps_logged(run) == NUM_STEPS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_on_remote_shards_saves_too(number: signal.Signals, folder: Path, start: Start) -> None:
    """Its loader processes come from a fork server, which hears the signal as well."""
    run, server = folder / f"remote-{number.name}", WebServer(folder)
    process = start(run.name, f"data.train_shards={server.url}/train", f"data.shard_cache_dir={folder / 'cache'}")
    wait_until_it_trains(process, run)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=100)[1]
    server.stop()
    assert process.returncode == 75, said
    assert "Traceback" not in said and "resource_tracker" not in said
    assert checkpoint(run)["global_step"] == steps_logged(run)


def test_one_rank_that_hears_it_is_enough(folder: Path, start: Start) -> None:
    run = folder / "two"
    process = start("two", "trainer.devices=2")
    wait_until_it_trains(process, run)
    os.kill(rank_1_of(process), signal.SIGUSR1)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 75, said
    assert "Traceback" not in said
    assert checkpoint(run)["global_step"] == steps_logged(run)


def test_more_signals_do_not_spoil_the_checkpoint(folder: Path, start: Start) -> None:
    run = folder / "impatient"
    process = start("impatient")
    wait_until_it_trains(process, run)
    for _ in range(20):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 75, said
    assert said.count("SIGTERM: the run saves") == 1
    assert checkpoint(run)["global_step"] == steps_logged(run)


def test_a_second_ctrl_c_stops_at_once(folder: Path, start: Start) -> None:
    process = start("hasty", "data.global_batch_size=2048", "mixing.group_size=32")  # a step takes seconds
    while not (folder / "hasty" / "summary.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (folder / "hasty" / "checkpoints").exists()
