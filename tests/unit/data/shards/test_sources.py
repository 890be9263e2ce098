"""The paths that people give, and the tars that they mean."""

import pytest
from omegaconf import OmegaConf

from tests.tars import write_shards
from timix_pl.core.errors import DataError
from timix_pl.data.shards.local_tar import write_manifest
from timix_pl.data.shards.sources import resolve_shards


def test_patterns_folders_files_and_lists(tmp_path, monkeypatch):
    write_shards(tmp_path / "a")
    write_shards(tmp_path / "b", num_samples=2)
    monkeypatch.chdir(tmp_path)
    tars = [t.location for t in resolve_shards("a/shard-{000000..000001}.tar")[0].tars]
    assert tars == ["a/shard-000000.tar", "a/shard-000001.tar"]
    assert [t.location for t in resolve_shards("a/*1.tar")[0].tars] == ["a/shard-000001.tar"]
    assert [t.location for t in resolve_shards("a/shard-000000.tar")[0].tars] == ["a/shard-000000.tar"]
    assert len(resolve_shards("{a,b}")[0].tars) == 3
    sources = resolve_shards(OmegaConf.create(["a", {"path": "b", "weight": 2}]))
    assert [(len(s.tars), s.weight) for s in sources] == [(2, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "no shards given"),
        ([], "no shards given"),
        ("{tmp}/nope/deeper", r"deeper does not exist\. The nearest existing path is {tmp}\."),
        ("{tmp}/a/z-*.tar", r"matches no file\. There are no such files in {tmp}/a\."),
        ("{tmp}/nope/z-*.tar", r"matches no file\. The nearest existing path is {tmp}\."),
        ("{tmp}/a/shard-{{000001..000002}}.tar", r"shard-000002\.tar does not exist"),
        ("{tmp}/a/shard-{{0.tar", "unbalanced braces"),
        ("{tmp}/empty", "has no .tar files"),
        ("ftp://host/x.tar", "s3://, gs://"),
        ([{"path": "{tmp}/a", "weight": 0}], "weight=0 of .* above 0"),
        ([{"path": "{tmp}/a", "weight": "2"}], "weight='2'"),
        ([{"path": "{tmp}/a", "wieght": 2}], "wieght"),
    ],
)
def test_what_cannot_be_found_is_named_with_its_key(tmp_path, spec, message):
    write_shards(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    if isinstance(spec, str):
        spec = spec.format(tmp=tmp_path)
    elif spec:
        spec = [spec[0] | {"path": str(tmp_path / "a")}]
    with pytest.raises(DataError, match=message.replace("{tmp}", str(tmp_path))) as caught:
        resolve_shards(spec, "data.train_shards")
    assert str(caught.value).startswith("data.train_shards")


def test_a_folder_that_lost_or_gained_a_shard_is_refused_until_indexed_again(tmp_path):
    folder = write_shards(tmp_path / "a", num_samples=6)
    (folder / "shard-000001.tar").rename(folder / "shard-000009.tar")
    with pytest.raises(DataError, match=r"shard-000001\.tar is missing, 2 in all"):
        resolve_shards(folder)
    assert write_manifest(folder).num_samples == 6
    assert len(resolve_shards(folder)[0].tars) == 3
