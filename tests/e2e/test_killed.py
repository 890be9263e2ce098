"""A run killed with SIGKILL, before its first checkpoint and again after one, ends where an unbroken run ends; and a run on a full disk."""

import csv
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.fork_server import run_in_a_fork
from tests.preloaded import popen
from tests.tiny import write_shards
from timix_pl.cli.train import main as train
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback, newest_whole_checkpoint

FULL_DISK = """
import resource
from timix_pl.cli.train import main
from timix_pl.training.callbacks.mixing import MixingCallback

before_a_step = MixingCallback.on_train_batch_start

def fill(self, trainer, module, *arguments):
    before_a_step(self, trainer, module, *arguments)
    if module.global_step == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))

MixingCallback.on_train_batch_start = fill
main({words})
"""


def train_until_killed(step, words):
    after_a_step = CheckpointsCallback.on_train_batch_end

    def kill(self, trainer, module, *arguments):
        after_a_step(self, trainer, module, *arguments)
        if module.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    CheckpointsCallback.on_train_batch_end = kill
    train(words)


def killed_after(step, words):
    assert run_in_a_fork(train_until_killed, step, words) == -signal.SIGKILL


def rows(run):
    """Without what depends on the clock and the process."""
    with (run / "metrics.csv").open(newline="") as file:
        measured = ("per_s", "per_device", "_frac", "memory_gb")
        return [{k: v for k, v in row.items() if not k.endswith(measured)} for row in csv.DictReader(file)]


@pytest.fixture
def words(tmp_path):
    write_shards(tmp_path / "train", 20)
    write_shards(tmp_path / "regions", 8, seed=1, num_regions=2)
    words = ["model=tiny", "trainer=cpu", "trainer.max_steps=6", "trainer.progress_bar=false", "trainer.log_every_n_steps=1"]
    words += ["trainer.num_threads=1", "data.num_workers=1", "data.global_batch_size=8", "mixing.group_size=4", "pta.batch_size=4"]
    words += ["evaluation.tasks=[]", "checkpoint.every_n_steps=2", f"data.train_shards={tmp_path / 'train'}"]
    return [*words, f"data.region_shards={tmp_path / 'regions'}"]


def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path, words):
    broken = [*words, f"run_dir={tmp_path / 'broken'}"]
    killed_after(1, broken)
    killed_after(5, broken)
    assert not list((tmp_path / "broken" / "checkpoints").glob("step-*6.ckpt"))
    train(broken)
    train([*words, f"run_dir={tmp_path / 'whole'}"])
    one, two = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("broken", "whole"))
    assert one["global_step"] == two["global_step"] == 6
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in two["state_dict"])
    for number, state in two["optimizer_states"][0]["state"].items():
        assert all(torch.equal(one["optimizer_states"][0]["state"][number][name], state[name]) for name in state)
    assert [row["step"] for row in rows(tmp_path / "whole")] == ["1", "2", "3", "4", "5", "6"]
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(tmp_path, words):
    """Files may not grow beyond 1 MB, as on a full disk, from the third step on: the checkpoint of step 4 does not fit."""
    broken = [*words, f"run_dir={tmp_path / 'broken'}"]
    program = tmp_path / "full_disk.py"
    program.write_text(FULL_DISK.format(words=broken))
    process = popen([sys.executable, program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 2 and "Traceback" not in said
    assert "step-00000004.ckpt cannot be written" in said and "make room" in said
    checkpoints = tmp_path / "broken" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["last.ckpt", "step-00000002.ckpt"]
    assert newest_whole_checkpoint(checkpoints) == (checkpoints / "step-00000002.ckpt", [])
