"""A whole run on two ranks, started as a user would, against the same run on one."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import write_scripts
from tests.preloaded import popen
from tests.tiny import write_shards
from timix_pl.cli.train import main as train

WORDS = """model=tiny trainer=cpu data.global_batch_size=16 mixing.group_size=4 mixing.ratio=0.5 pta.batch_size=4 data.num_workers=0
trainer.max_steps=4 trainer.log_every_n_steps=1 trainer.progress_bar=false trainer.num_threads=1 checkpoint.every_n_steps=2
data.train_shards=s/train data.region_shards=s/regions data.val_shards=s/val optim.warmup_frac=0""".split()  # noqa: SIM905


def logged(run_dir: Path, name: str) -> list[float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def losses(run_dir: Path) -> list[float]:
    return logged(run_dir, "train/loss/total")


def test_two_ranks_train_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count, regions in (("train", 24, 0), ("regions", 8, 2), ("val", 10, 1)):
        write_shards(tmp_path / "s" / name, count, seed=count, num_regions=regions)
    command = str(write_scripts(tmp_path) / "timix-train")

    def run(*more: str, popen: Callable[..., subprocess.Popen[str]]) -> None:
        process = popen([command, *WORDS, *more], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = process.communicate(timeout=500)[1]
        assert process.returncode == 0, said

    monkeypatch.chdir(tmp_path)
    train([*WORDS, "run_dir=one", "trainer.devices=1"])
    run("run_dir=two", "trainer.devices=2", popen=subprocess.Popen)  # from nothing, as a user does
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    unlike = "evaluation.batch_size=4"  # numbers of batches per rank
    run("run_dir=shards", "trainer.devices=2", "trainer.strategy=fsdp", unlike, popen=popen)
    assert losses(tmp_path / "shards") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    evaluated, reference = (json.loads((tmp_path / name / "evaluation.json").read_text())["metrics"] for name in ("shards", "one"))
    assert evaluated.keys() == reference.keys()
    assert evaluated["grounding/patch_ap"] == pytest.approx(reference["grounding/patch_ap"], abs=0.01)
    assert (tmp_path / "shards" / "checkpoints" / "best.ckpt" / "whole.json").exists()
    assert all(0 < share < 1 for share in logged(tmp_path / "two", "train/collectives_frac"))
    assert [2 * one for one in logged(tmp_path / "two", "train/samples_per_s_per_device")] == pytest.approx(
        logged(tmp_path / "two", "train/samples_per_s"), rel=1e-5
    )
