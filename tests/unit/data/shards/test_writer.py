"""The writer against what any tar reader, and webdataset, see."""

import json
import os
import tarfile

import pytest
import webdataset

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.shards.index import load_index
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.data.shards.writer import ShardWriter

PNG = b"\x89PNG not looked at by the writer"


def write_samples(folder, num_samples=5, **options):
    with ShardWriter(folder, samples_per_shard=2, **options) as writer:
        for i in range(num_samples):
            regions = [Region("a dog", (0.0, 0.25, 0.5, 1.0))]
            writer.write(f"img {i}.x", PNG + bytes([i]), "png", captions=[f"chat n° {i}", "second"], regions=regions, extra={"source": "t"})


def test_any_tar_reader_sees_the_documented_members(tmp_path):
    write_samples(tmp_path / "s")
    assert sorted(p.name for p in (tmp_path / "s").glob("*.tar")) == [f"shard-00000{i}.tar" for i in range(3)]
    with tarfile.open(tmp_path / "s" / "shard-000001.tar") as tar:
        assert tar.getnames() == [f"img_{i}_x.{ext}" for i in (2, 3) for ext in ("png", "txt", "json")]
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "img_2_x.png").read_bytes() == PNG + bytes([2])
    assert (tmp_path / "out" / "img_2_x.txt").read_text(encoding="utf-8") == "chat n° 2"
    fields = json.loads((tmp_path / "out" / "img_2_x.json").read_text(encoding="utf-8"))
    regions = [{"phrase": "a dog", "bbox_xyxy_norm": [0.0, 0.25, 0.5, 1.0]}]
    assert fields == {"captions": ["chat n° 2", "second"], "regions": regions, "source": "t"}


def test_webdataset_reads_the_shards(tmp_path):
    write_samples(tmp_path / "s")
    tars = [str(p) for p in sorted((tmp_path / "s").glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [f"img_{i}_x" for i in range(5)]
    assert [s["png"] for s in samples] == [PNG + bytes([i]) for i in range(5)]


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_samples(tmp_path / name)
    for path in sorted((tmp_path / "a").glob("*.tar")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in "ab"]
    for shard in manifests[0]["shards"] + manifests[1]["shards"]:
        del shard["mtime_ns"]
    assert manifests[0] == manifests[1]


def test_every_shard_is_indexed_and_the_manifest_counts(tmp_path):
    write_samples(tmp_path / "s")
    (source,) = resolve_shards(tmp_path / "s")
    assert [len(tar.index()) for tar in source.tars] == [2, 2, 1]
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["num_samples"] == 5
    assert [s["num_bytes"] for s in manifest["shards"]] == [os.stat(tar.location).st_size for tar in source.tars]


def test_a_stopped_writer_leaves_only_whole_shards_and_readers_refuse_the_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "s", samples_per_shard=2) as writer:
        for i in range(3):
            writer.write(str(i), PNG, "png")
        raise KeyboardInterrupt
    assert sorted(p.name for p in (tmp_path / "s").glob("*.tar*")) == ["shard-000000.tar", "shard-000000.tar.index.npz"]
    assert len(load_index(tmp_path / "s" / "shard-000000.tar")) == 2
    assert not (tmp_path / "s" / "shard-000001.tar").exists()
    with pytest.raises(DataError, match="has not finished"):
        resolve_shards(tmp_path / "s")


def test_shards_are_replaced_only_on_demand(tmp_path):
    write_samples(tmp_path / "s", num_samples=5)
    with pytest.raises(DataError, match=r"already has shard-000000\.tar"):
        write_samples(tmp_path / "s", num_samples=1)
    write_samples(tmp_path / "s", num_samples=1, overwrite=True)
    assert [p.name for p in (tmp_path / "s").glob("*.tar")] == ["shard-000000.tar"]
    assert resolve_shards(tmp_path / "s")[0].tars[0].location == str(tmp_path / "s" / "shard-000000.tar")


def test_overwrite_never_removes_tars_that_it_did_not_make(tmp_path):
    (tmp_path / "mine.tar").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"mine\.tar"):
        ShardWriter(tmp_path, overwrite=True)
    assert (tmp_path / "mine.tar").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"key": "a"}, "repeated"),
        ({"key": "/."}, "no letter or digit"),
        ({"image": b""}, "0 bytes"),
        ({"image_ext": "gif"}, "'gif'"),
        ({"regions": [Region("cat", (0.5, 0.0, 1.5, 1.0))]}, "'cat'"),
        ({"regions": [Region("cat", (0.5, 0.0, 0.5, 1.0))]}, "'cat'"),
        ({"regions": [Region("cat", (0.5, 0.0, float("nan"), 1.0))]}, "'cat'"),
        ({"extra": {"captions": []}}, "extra must not have captions"),
    ],
)
def test_wrong_samples_are_refused(tmp_path, sample, message):
    with ShardWriter(tmp_path) as writer:
        writer.write("a", PNG, "png")
        with pytest.raises(DataError, match=message):
            writer.write(**({"key": "b", "image": PNG, "image_ext": "png"} | sample))
    assert load_index(tmp_path / "shard-000000.tar").keys.tolist() == ["a"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no sample was written"), ShardWriter(tmp_path):
        pass
