"""Indexes against the tar's own content."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading

import pytest

from timix_pl.core.errors import DataError
from timix_pl.data.shards import index as index_module
from timix_pl.data.shards.index import (
    MANIFEST_NAME,
    Manifest,
    ShardFacts,
    ShardTable,
    build_manifest,
    index_shard,
    load_index,
    read_manifest,
)
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT
from timix_pl.data.shards.writer import ShardWriter


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder, num_samples=4):
    with ShardWriter(folder, samples_per_shard=2) as writer:
        for i in range(num_samples):
            writer.write(f"k{i}", b"image", "jpg", captions=["a"])
    return folder


FOREIGN = {
    "./._a.jpg": b"resource fork",
    "dir/b.seg.png": b"another kind of member",
    "dir/b.JPG": b"image b",
    "dir/b.json": b"{}",
    "dir/c.webp": b"image c",
    "dir/c.caption": "ein Bär".encode(),
    "dir/" + "long" * 60 + ".png": b"image long",
    "d.txt": b"no image",
    "README": b"no extension",
}


def test_every_offset_points_at_the_member(tmp_path):
    tar = write_tar(tmp_path / "x.tar", FOREIGN)
    index = index_shard(tar)
    data = tar.read_bytes()

    def member(i, kind):
        return data[index.offsets[i, kind] :][: index.sizes[i, kind]] if index.sizes[i, kind] >= 0 else None

    assert index.keys.tolist() == ["dir/b", "dir/c", "dir/" + "long" * 60]
    assert index.image_exts.tolist() == ["jpg", "webp", "png"]
    assert [member(i, IMAGE) for i in range(3)] == [b"image b", b"image c", b"image long"]
    assert [member(i, TEXT) for i in range(3)] == [None, "ein Bär".encode(), None]
    assert [member(i, JSON) for i in range(3)] == [b"{}", None, None]


def test_a_sample_without_image_is_listed(tmp_path):
    index = index_shard(write_tar(tmp_path / "x.tar", FOREIGN))
    assert [p.split(":")[0] for p in index.problems] == ["d"]
    assert build_manifest([tmp_path / "x.tar"]).shards[0].num_problems == len(index.problems)


def test_a_second_member_of_a_kind_is_listed_and_ignored(tmp_path):
    index = index_shard(write_tar(tmp_path / "x.tar", {"a.jpg": b"12", "a.png": b"345"}))
    assert (index.sizes[0, IMAGE], index.image_exts[0]) == (2, "jpg")
    assert index.problems[0].startswith("a.png")


def test_load_gives_what_index_gave(tmp_path):
    made = index_shard(write_tar(tmp_path / "x.tar", FOREIGN))
    read = load_index(tmp_path / "x.tar")
    for name in ("keys", "offsets", "sizes", "image_exts"):
        assert (getattr(made, name) == getattr(read, name)).all()
    assert (read.problems, read.digest, len(read)) == (made.problems, made.digest, 3)


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1500, 2048])
def test_a_truncated_tar_is_refused_by_name(tmp_path, cut):
    """Cut inside a header, at its end, inside the data, and between members, where plain tarfile sees nothing wrong."""
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"x" * 500, "b.jpg": b"y" * 500})
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"x\.tar"):
        index_shard(tar)


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(DataError, match="uncompressed"):
        index_shard(tmp_path / "x.tar")


def test_missing_shard_and_missing_index(tmp_path):
    with pytest.raises(DataError, match=r"x\.tar: no such shard"):
        index_shard(tmp_path / "x.tar")
    write_tar(tmp_path / "y.tar", FOREIGN)
    with pytest.raises(DataError, match=r"no index\. Make it with 'timix-data index"):
        load_index(tmp_path / "y.tar")


def test_a_changed_tar_is_refused_until_it_is_indexed_again(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    before = build_manifest([tar])
    write_tar(tar, {"b.jpg": b"1"})
    os.utime(tar, ns=(0, 0))
    with pytest.raises(DataError, match="has changed"):
        load_index(tar)
    assert build_manifest([tar]).fingerprint != before.fingerprint
    assert load_index(tar).keys.tolist() == ["b"]


def test_a_damaged_index_is_refused_and_made_again(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    index_shard(tar)
    for content in (b"PK nonsense", b"", (tmp_path / "x.tar.index.npz").read_bytes()[:-40]):
        (tmp_path / "x.tar.index.npz").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load_index(tar)
        assert build_manifest([tar]).num_samples == 1


def test_the_fingerprint_follows_content_and_not_place(tmp_path):
    a = build_manifest(resolve_shards(write_shards(tmp_path / "a"))[0].tars)
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert build_manifest(resolve_shards(tmp_path / "moved")[0].tars).fingerprint == a.fingerprint
    assert build_manifest([a.shards[0].path]).fingerprint != a.fingerprint
    assert build_manifest([s.path for s in reversed(a.shards)]).fingerprint != a.fingerprint
    (tmp_path / "moved" / "shard-000000.tar").rename(tmp_path / "moved" / "a.tar")
    assert build_manifest(sorted((tmp_path / "moved").glob("*.tar"))).fingerprint != a.fingerprint
    assert (a.num_samples, [s.num_samples for s in a.shards]) == (4, [2, 2])


def test_the_fingerprint_is_a_hash_of_names_counts_sizes_and_digests():
    """More shards than are taken at a time."""
    facts = [ShardFacts(n % 7, 100 + n, n, 0, f"{n:064x}") for n in range(2500)]
    manifest = Manifest(ShardTable.of([f"/anywhere/{n}.tar" for n in range(2500)], facts))
    expected = [[f"{n}.tar", fact.num_samples, fact.num_bytes, fact.digest] for n, fact in enumerate(facts)]
    assert manifest.fingerprint == hashlib.sha256(json.dumps(expected).encode()).hexdigest()


def test_a_table_gives_back_what_it_was_made_of(tmp_path):
    tars = [tmp_path / "a" / "x.tar", tmp_path / "bé" / "long name.tar", tmp_path / "a" / "y.tar"]
    facts = [ShardFacts(n, 2**40 + n, 10**18 + n, n, f"{n:064x}") for n in range(3)]
    table = ShardTable.of(tars, facts)
    assert [(entry.path, *entry[1:]) for entry in table] == [(tar, *fact) for tar, fact in zip(tars, facts, strict=True)]
    assert table[-2:] == [table[1], table[2]] and table.sizes.tolist() == [0, 1, 2]
    with pytest.raises(IndexError):
        table[3]


def test_a_shard_that_changed_behind_the_manifest_is_indexed_anew(tmp_path):
    folder = write_shards(tmp_path / "a")
    before = build_manifest(resolve_shards(folder)[0].tars)
    write_tar(folder / "shard-000001.tar", {"new.jpg": b"1", "other.jpg": b"2", "third.jpg": b"3"})
    after = build_manifest(resolve_shards(folder)[0].tars)
    assert (after.shards.sizes.tolist(), after.fingerprint != before.fingerprint) == ([2, 3], True)


def test_several_threads_look_at_a_few_hundred_tars(tmp_path, monkeypatch):
    """On a network's disk each look is waiting; two threads must wait at the same time, or the barrier breaks."""
    tars = [tmp_path / f"{number:03d}.tar" for number in range(200)]
    for tar in tars:
        tar.touch()
    facts = [ShardFacts(1, 0, tar.stat().st_mtime_ns, 0, "0" * 64) for tar in tars]
    index_module.save_manifest(tmp_path, Manifest(ShardTable.of(tars, facts)))
    both, look = threading.Barrier(2, timeout=10), index_module._size_and_time

    def look_together(tar):
        if str(tar).endswith(("000.tar", "199.tar")):
            both.wait()
        return look(tar)

    monkeypatch.setattr(index_module, "_size_and_time", look_together)
    assert build_manifest(tars).num_samples == 200


def test_a_manifest_of_an_older_version_is_completed_from_the_indexes(tmp_path):
    folder = write_shards(tmp_path / "a")
    before = build_manifest(resolve_shards(folder)[0].tars)
    content = json.loads((folder / MANIFEST_NAME).read_text())
    content["shards"] = [{name: shard[name] for name in ("name", "num_samples", "num_bytes")} for shard in content["shards"]]
    (folder / MANIFEST_NAME).write_text(json.dumps(content))
    assert build_manifest(resolve_shards(folder)[0].tars).fingerprint == before.fingerprint


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"shards": [{"name": 3}]}', '{"shards": [{"name": "x.tar", "num_samples": "many"}]}'])
def test_a_damaged_manifest_is_refused_by_name(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json: the manifest is damaged.*'timix-data index"):
        read_manifest(tmp_path)


def test_the_whole_part_of_a_cut_tar_is_indexed_only_where_asked(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"x" * 500, "a.txt": b"a", "b.jpg": b"y" * 500, "b.txt": b"b"})
    tar.write_bytes(tar.read_bytes()[: 5 * 512 + 300])  # inside b's image
    with pytest.raises(DataError, match=r"cut off or damaged after 2 members, at byte 1537 of 2860.*--accept-truncated"):
        index_shard(tar)
    index = index_shard(tar, accept_truncated=True)
    assert index.keys.tolist() == ["a"] and "cut off" in index.problems[0] and load_index(tar).problems == index.problems


def test_what_follows_damage_in_the_middle_is_not_taken_either(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"x", "b.jpg": b"y", "c.jpg": b"z"})
    content = bytearray(tar.read_bytes())
    content[1024:1536] = b"?" * 512  # b's header
    tar.write_bytes(content)
    with pytest.raises(DataError, match="after 1 members"):
        index_shard(tar)
    assert index_shard(tar, accept_truncated=True).keys.tolist() == ["a"]


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg"])
def test_a_name_that_leads_out_of_the_tar_is_left_out_and_reported(tmp_path, name):
    index = index_shard(write_tar(tmp_path / "x.tar", {name: b"1", "..b.jpg": b"2", "x..y/c.jpg": b"3"}))
    assert index.keys.tolist() == ["x..y/c"]
    assert index.problems == (f"{name}: the member's name leads out of the tar (an absolute path or '..'); the member is left out",)


def test_a_manifest_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No sample with an image in 1 shard \(.*x\.tar"):
        build_manifest([write_tar(tmp_path / "x.tar", {"a.txt": b"1"})])
