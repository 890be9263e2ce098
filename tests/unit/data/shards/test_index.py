"""Indexes against the tar's own content."""

import os
import tarfile

import pytest

from tests.tars import write_tar
from timix_pl.core.errors import DataError
from timix_pl.data.shards.index import index_shard, load_index
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT

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
    assert LocalTars([tmp_path / "x.tar"]).manifest().shards.num_problems.tolist() == [len(index.problems)]


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
    before = LocalTars([tar]).manifest()
    write_tar(tar, {"b.jpg": b"1"})
    os.utime(tar, ns=(0, 0))
    with pytest.raises(DataError, match="has changed"):
        load_index(tar)
    assert LocalTars([tar]).manifest().fingerprint != before.fingerprint
    assert load_index(tar).keys.tolist() == ["b"]


def test_a_damaged_index_is_refused_and_made_again(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    index_shard(tar)
    for content in (b"PK nonsense", b"", (tmp_path / "x.tar.index.npz").read_bytes()[:-40]):
        (tmp_path / "x.tar.index.npz").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load_index(tar)
        assert LocalTars([tar]).manifest().num_samples == 1


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
