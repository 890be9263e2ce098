"""Indexes against the tar's own content."""

import io
import os
import shutil
import tarfile

import pytest

from timix_pl.core.errors import DataError
from timix_pl.data.index import build_manifest, index_shard, load_index
from timix_pl.data.shards import resolve_shards
from timix_pl.data.tar_scan import IMAGE, JSON, TEXT
from timix_pl.data.writer import ShardWriter


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
    (tmp_path / "x.tar.index.npz").write_bytes(b"PK nonsense")
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


def test_a_manifest_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No sample with an image in 1 shards \(.*x\.tar"):
        build_manifest([write_tar(tmp_path / "x.tar", {"a.txt": b"1"})])
