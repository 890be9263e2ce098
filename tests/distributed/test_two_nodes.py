"""Two nodes: torchrun in two network namespaces that a cable joins, as on two machines."""

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import write_scripts
from tests.distributed.network import enter
from tests.distributed.test_ddp_run import WORDS, losses
from tests.preloaded import popen
from tests.tiny import write_shards
from timix_pl.cli.train import main as train

NODES = ("timix0", "timix1")
STEPS = [
    *(f"ip netns add {node}" for node in NODES),
    f"ip link add veth0 netns {NODES[0]} type veth peer name veth1 netns {NODES[1]}",
    *(f"ip -n {node} link set lo up" for node in NODES),
    *(f"ip -n {node} address add 10.77.0.{number + 1}/24 dev veth{number}" for number, node in enumerate(NODES)),
    *(f"ip -n {node} link set veth{number} up" for number, node in enumerate(NODES)),
]


@pytest.fixture
def two_nodes() -> Iterator[None]:
    if shutil.which("ip") is None:
        pytest.skip("no second node here: ip is not installed (Debian: apt install iproute2)")
    try:
        for step in STEPS:
            done = subprocess.run(step.split(), capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"no second node here: '{step}' was refused: {done.stderr.strip()}")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "delete", node], capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count, regions in (("train", 24, 0), ("regions", 8, 2), ("val", 10, 1)):
        write_shards(tmp_path / "s" / name, count, seed=count, num_regions=regions)
    return write_scripts(tmp_path)


def start_on_both(folder: Path, *more: str) -> list[subprocess.Popen[str]]:
    words = [*WORDS, "launcher=torchrun", "trainer.num_nodes=2", "trainer.devices=1", "launcher.rdzv_endpoint=10.77.0.1:29500", *more]
    return [
        popen(
            [folder / "timix-train", *words, f"launcher.node_rank={number}"],
            cwd=folder,
            env=os.environ | {"GLOO_SOCKET_IFNAME": f"veth{number}"},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(enter, node),
        )
        for number, node in enumerate(NODES)
    ]


def end(processes: list[subprocess.Popen[str]], status: int) -> None:
    for process in processes:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == status, said
        assert "Traceback" not in said


def test_two_nodes_train_like_one(two_nodes: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end(start_on_both(folder, "run_dir=two"), 0)
    monkeypatch.chdir(folder)
    train([*WORDS, "trainer.devices=1", "run_dir=one"])
    assert losses(folder / "two") == pytest.approx(losses(folder / "one"), rel=1e-4)


def test_a_signal_to_one_node_stops_both(two_nodes: None, folder: Path) -> None:
    processes = start_on_both(folder, "run_dir=stopped", "trainer.max_steps=1000000")
    while not (folder / "stopped/checkpoints/last.ckpt").exists():
        assert processes[0].poll() is None, processes[0].communicate()[1]
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGUSR1)
    end(processes, 75)
