"""A file is there whole, or what was there before is."""

import json
import os
from pathlib import Path

import pytest

from timix_pl.core.files import atomic_path, drop_lines_after, nearest_path


def test_the_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_machines_that_share_a_folder_may_write_a_file_at_once(tmp_path, monkeypatch):
    """In containers, processes of two machines often have the same number."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with atomic_path(tmp_path / "a.txt") as mine, atomic_path(tmp_path / "a.txt") as theirs:
        assert mine != theirs
        assert all(path.parent == tmp_path and path.match(".a.txt.*.tmp") for path in (mine, theirs))
        mine.write_text("mine")
        theirs.write_text("theirs")
    assert (tmp_path / "a.txt").read_text() == "mine"
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_mistyped_path_brings_the_nearest_that_exists(tmp_path, monkeypatch):
    (tmp_path / "shards" / "train").mkdir(parents=True)
    assert nearest_path(tmp_path / "shard" / "train") == f"The nearest existing path is {tmp_path / 'shards'}."
    assert nearest_path(tmp_path / "shards" / "trian") == f"The nearest existing path is {tmp_path / 'shards' / 'train'}."
    assert nearest_path(tmp_path / "photos" / "train") == f"The nearest existing path is {tmp_path}."
    monkeypatch.chdir(tmp_path)
    assert nearest_path(Path("shards/trian")) == f"The nearest existing path is {tmp_path / 'shards' / 'train'}."


@pytest.mark.parametrize(("step", "left"), [(0, None), (1, "ab"), (2, "ab"), (3, "abc"), (9, "abc")])
def test_lines_of_later_steps_and_one_cut_off_are_dropped(tmp_path, step, left):
    path = tmp_path / "lines.jsonl"
    drop_lines_after(path, 0)
    assert not path.exists()
    path.write_text(
        "".join(f'{{"step": {at}, "key": "{key}"}}\n' for at, key in ((1, "a"), (1, "b"), (3, "c"))) + "\0\0\n" + '{"step": 3, "ke'
    )
    drop_lines_after(path, step)
    assert ("".join(json.loads(line)["key"] for line in path.read_text().splitlines()) if path.exists() else None) == left
