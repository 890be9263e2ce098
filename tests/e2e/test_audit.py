"""The audit log: what was trained on, whoever read it, and what took the place of what."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.soak.audit import audit
from tests.tiny import write_shards
from timix_pl.cli.train import main as train
from timix_pl.data.shards.local_tar import write_manifest

WORDS = """model=tiny trainer=cpu trainer.num_threads=1 trainer.progress_bar=false data.global_batch_size=8 mixing.group_size=4
pta.batch_size=4 pta.every_n_steps=2 data.num_workers=0 evaluation.tasks=[] pictures.num_mixed=0 checkpoint.every_n_steps=1
checkpoint.keep_last=9 data.audit=true data.max_bad_frac=1""".split()  # noqa: SIM905


def write_zeros(tar: Path, name: str) -> None:
    """Damage a member where it lies."""
    with tarfile.open(tar) as archive:
        member = archive.getmember(name)
    with tar.open("r+b") as file:
        file.seek(member.offset_data)
        file.write(bytes(member.size))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("audited")
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    write_zeros(folder / "train" / "shard-000001.tar", "s9.png")
    write_manifest(folder / "train")
    return [*WORDS, f"data.train_shards={folder / 'train'}", f"data.region_shards={folder / 'regions'}"]


def test_each_sample_of_an_epoch_is_there_once_and_a_replacement_says_so(words: list[str], tmp_path: Path) -> None:
    train([*words, f"run_dir={tmp_path}", "trainer.max_steps=5"])
    pairs, regions = audit(tmp_path)
    assert [line["position"] for line in pairs] == list(range(40))
    assert [line["step"] for line in pairs] == [1 + position // 8 for position in range(40)]
    assert [(line["step"], line["position"]) for line in regions] == [(1 + 2 * (position // 4), position) for position in range(12)]
    for epoch in (pairs[:20], pairs[20:]):
        meant = [line["replaces"][0] if line["replaces"] else f"{line['shard']}/{line['key']}" for line in epoch]
        assert sorted(meant) == sorted(f"shard-{number // 8:06d}.tar/s{number}" for number in range(20))
        (replacement,) = [line for line in epoch if line["replaces"]]
        assert replacement["replaces"] == ["shard-000001.tar/s9"] and replacement["key"] != "s9"


def test_steps_that_are_done_again_are_written_down_once(words: list[str], tmp_path: Path) -> None:
    train([*words, f"run_dir={tmp_path / 'whole'}", "trainer.max_steps=5"])
    train([*words, f"run_dir={tmp_path / 'cut'}", "trainer.max_steps=5"])
    for path in (tmp_path / "cut" / "checkpoints").glob("step-*[345].ckpt"):
        path.unlink()
    with (tmp_path / "cut" / "audit-0.jsonl").open("a") as file:
        file.write('{"step": 6, "stre')
    train([*words, f"run_dir={tmp_path / 'cut'}", "trainer.max_steps=5"])
    assert audit(tmp_path / "cut") == audit(tmp_path / "whole")


def test_without_it_nothing_is_written(words: list[str], tmp_path: Path) -> None:
    train([*words, f"run_dir={tmp_path}", "trainer.max_steps=1", "data.audit=false"])
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 1
    assert not list(tmp_path.glob("audit-*"))
