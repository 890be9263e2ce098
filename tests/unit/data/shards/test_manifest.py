"""Manifests against the indexes and the tars that they describe."""

import hashlib
import json
import shutil
import threading

import pytest

from tests.tars import write_shards, write_tar
from timix_pl.core.errors import DataError
from timix_pl.data.shards import local_tar
from timix_pl.data.shards.index import ShardFacts
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.manifest import MANIFEST_NAME, Manifest, read_manifest, save_manifest
from timix_pl.data.shards.sources import resolve_shards


def test_the_fingerprint_follows_content_and_not_place(tmp_path):
    a = resolve_shards(write_shards(tmp_path / "a"))[0].tars.manifest()
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert resolve_shards(tmp_path / "moved")[0].tars.manifest().fingerprint == a.fingerprint
    assert LocalTars([a.tars[0].location]).manifest().fingerprint != a.fingerprint
    assert LocalTars([tar.location for tar in a.tars][::-1]).manifest().fingerprint != a.fingerprint
    (tmp_path / "moved" / "shard-000000.tar").rename(tmp_path / "moved" / "a.tar")
    assert LocalTars(sorted((tmp_path / "moved").glob("*.tar"))).manifest().fingerprint != a.fingerprint
    assert (a.num_samples, a.shards.sizes.tolist()) == (4, [2, 2])


def test_the_fingerprint_is_a_hash_of_names_counts_sizes_and_digests():
    """More shards than are taken at a time."""
    facts = [ShardFacts(n % 7, 100 + n, n, 0, f"{n:064x}") for n in range(2500)]
    manifest = Manifest.of(LocalTars(f"/anywhere/{n}.tar" for n in range(2500)), facts)
    expected = [[f"{n}.tar", fact.num_samples, fact.num_bytes, fact.digest] for n, fact in enumerate(facts)]
    assert manifest.fingerprint == hashlib.sha256(json.dumps(expected).encode()).hexdigest()


def test_columns_give_back_what_they_were_made_of(tmp_path):
    paths = [tmp_path / "a" / "x.tar", tmp_path / "bé" / "long name.tar", tmp_path / "a" / "y.tar"]
    facts = [ShardFacts(n, 2**40 + n, 10**18 + n, n, f"{n:064x}") for n in range(3)]
    manifest = Manifest.of(LocalTars(paths), facts)
    assert [tar.location for tar in manifest.tars] == [str(path) for path in paths]
    assert [*manifest.shards.rows()] == [(path.name, known) for path, known in zip(paths, facts, strict=True)]
    assert (manifest.shards.digest(2), manifest.shards.sizes.tolist()) == (facts[2].digest, [0, 1, 2])
    with pytest.raises(IndexError):
        manifest.tars[3]


def test_a_shard_that_changed_behind_the_manifest_is_indexed_anew(tmp_path):
    folder = write_shards(tmp_path / "a")
    before = resolve_shards(folder)[0].tars.manifest()
    write_tar(folder / "shard-000001.tar", {"new.jpg": b"1", "other.jpg": b"2", "third.jpg": b"3"})
    after = resolve_shards(folder)[0].tars.manifest()
    assert (after.shards.sizes.tolist(), after.fingerprint != before.fingerprint) == ([2, 3], True)


def test_several_threads_look_at_a_few_hundred_tars(tmp_path, monkeypatch):
    """On a network's disk each look is waiting; two threads must wait at the same time, or the barrier breaks."""
    tars = [tmp_path / f"{number:03d}.tar" for number in range(200)]
    for tar in tars:
        tar.touch()
    facts = [ShardFacts(1, 0, tar.stat().st_mtime_ns, 0, "0" * 64) for tar in tars]
    save_manifest(tmp_path, Manifest.of(LocalTars(tars), facts))
    both, look = threading.Barrier(2, timeout=10), local_tar.size_and_time

    def look_together(tar):
        if str(tar).endswith(("000.tar", "199.tar")):
            both.wait()
        return look(tar)

    monkeypatch.setattr(local_tar, "size_and_time", look_together)
    assert LocalTars(tars).manifest().num_samples == 200


def test_a_manifest_of_an_older_version_is_completed_from_the_indexes(tmp_path):
    folder = write_shards(tmp_path / "a")
    before = resolve_shards(folder)[0].tars.manifest()
    content = json.loads((folder / MANIFEST_NAME).read_text())
    content["shards"] = [{name: shard[name] for name in ("name", "num_samples", "num_bytes")} for shard in content["shards"]]
    (folder / MANIFEST_NAME).write_text(json.dumps(content))
    assert resolve_shards(folder)[0].tars.manifest().fingerprint == before.fingerprint


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"shards": [{"name": 3}]}', '{"shards": [{"name": "x.tar", "num_samples": "many"}]}'])
def test_a_damaged_manifest_is_refused_by_name(tmp_path, content):
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json: the manifest is damaged.*'timix-data index"):
        read_manifest(tmp_path)


def test_a_manifest_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No sample with an image in 1 shard \(.*x\.tar"):
        LocalTars([write_tar(tmp_path / "x.tar", {"a.txt": b"1"})]).manifest()
