"""Loss curves of short runs, committed. A change that claims to leave the numerics alone leaves these alone.

A change that is meant to move them says so in CHANGELOG.md and writes them again: ``TIMIX_WRITE_GOLDEN=1 pytest tests/golden``.
"""

import csv
import json
import os
from pathlib import Path

import pytest

from tests.tiny import write_shards
from timix_pl.cli.train import main as train

FILE = Path(__file__).parent / "curves.json"
RUN = """model=tiny trainer=cpu trainer.max_steps=4 trainer.log_every_n_steps=1 trainer.num_threads=1 trainer.progress_bar=false
optim.lr=1e-4 optim.warmup_frac=0 data.num_workers=0 data.global_batch_size=8 evaluation.tasks=[]
data.augmentation.scale=[0.5,1] data.augmentation.flip=true""".split()  # noqa: SIM905
MIXED, TAUGHT = "mixing.group_size=4", "mixing.group_size=4 pta.batch_size=4"
CHOICES = {
    "timix": TAUGHT,
    "timix, replace": f"{TAUGHT} mixing.compute=replace mixing.targets=one_hot mixing.lam=relevance mixing.ratio=0.5",
    "timix, siglip": f"{TAUGHT} loss=siglip",
    "cutmix": f"{MIXED} mixing=cutmix",
    "mixup": f"{MIXED} mixing=mixup mixing.targets=one_hot",
    "mixgen": f"{MIXED} mixing=mixgen",
    "none": "mixing=none",
}


def curves(folder: Path, words: list[str]) -> dict[str, list[float]]:
    train([*RUN, *words, f"run_dir={folder}"])
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("train/loss/") or name == "train/grad_norm"}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_has_the_losses_that_it_always_had(choice: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "pairs", 24)
    write_shards(tmp_path / "regions", 8, seed=1, num_regions=2)
    shards = [f"data.train_shards={tmp_path / 'pairs'}", f"data.region_shards={tmp_path / 'regions'}"]
    now = curves(tmp_path / "run", [*CHOICES[choice].split(), *shards])
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("TIMIX_WRITE_GOLDEN") == "1":
        FILE.write_text(json.dumps(known | {choice: now}, indent=1) + "\n")
        return
    assert now.keys() == known[choice].keys()
    for name in now:
        assert now[name] == pytest.approx(known[choice][name], rel=1e-4), name
