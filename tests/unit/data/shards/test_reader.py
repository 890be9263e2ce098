"""Samples out of tars as people make them."""

import io
import json
import os
import pickle
import tarfile

import pytest

from tests.tiny import encoded_image, random_pixels, write_shards
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.shards import local_tar
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

IMAGE = encoded_image(random_pixels(8, 8, seed=0), "PNG")


def reader_of(path):
    return ShardReader([source.tars.manifest() for source in resolve_shards(str(path))])


@pytest.fixture
def read(tmp_path):
    """The sample whose members are given."""

    def read_members(**members):
        path = tmp_path / "foreign.tar"
        with tarfile.open(path, "w") as tar:
            for ext, content in {"png": IMAGE, **members}.items():
                member = tarfile.TarInfo(f"folder/sample.{ext}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return reader_of(path)[0]

    return read_members


def as_json(value):
    return json.dumps(value).encode()


def test_what_was_written_is_read(tmp_path):
    reader = reader_of(write_shards(tmp_path / "shards", 20, num_regions=2))
    assert len(reader) == 20
    samples = [reader[number] for number in range(20)]
    assert [sample.key for sample in samples] == [f"s{number}" for number in range(20)]
    assert samples[9].shard == "shard-000001.tar" and reader.name(9) == ("shard-000001.tar", "s9")
    assert all(len(sample.captions) == 2 and len(sample.regions) == 2 and sample.image_ext == "png" for sample in samples)
    assert samples[3].image == encoded_image(random_pixels(40, 60, 3), "PNG")
    for outside in (20, -1):
        with pytest.raises(IndexError):
            reader[outside]


def test_it_can_be_sent_to_a_worker_after_use(tmp_path):
    reader = reader_of(write_shards(tmp_path / "shards", 5))
    before = reader[4]
    assert pickle.loads(pickle.dumps(reader))[4] == before


def test_a_text_file_alone_is_the_caption(read):
    sample = read(txt=" ein Hund, größer\n".encode())
    assert sample.captions == ("ein Hund, größer",) and sample.regions == () and sample.key == "folder/sample"


def test_captions_of_the_json_come_before_the_text_file(read):
    assert read(txt=b"short", json=as_json({"captions": ["one", "two"]})).captions == ("one", "two")
    assert read(txt=b"short", json=as_json({"regions": []})).captions == ("short",)
    assert read(txt=b"short", json=as_json({"captions": None})).captions == ("short",)


def test_empty_captions_do_not_count(read):
    assert read(txt=b" \n").captions == ()
    assert read(json=as_json({"captions": ["", "  ", "a dog", None, 3]})).captions == ("a dog",)
    assert read().captions == ()


def test_one_caption_that_is_not_in_a_list_is_one_caption(read):
    assert read(json=as_json({"captions": "a dog"})).captions == ("a dog",)


def test_other_fields_are_kept(read):
    sample = read(json=as_json({"captions": ["a"], "url": "u", "label": 3}))
    assert sample.extra == {"url": "u", "label": 3}


def test_regions_are_read_as_they_are(read):
    regions = [{"phrase": "a dog", "bbox_xyxy_norm": [0, 0.5, 1.5, 2], "more": 1}]
    assert read(json=as_json({"regions": regions})).regions == (Region("a dog", (0.0, 0.5, 1.5, 2.0)),)
    assert read(json=as_json({"regions": None})).regions == ()


@pytest.mark.parametrize(
    "members",
    [
        {"txt": b"\xff\xfe\xfa"},
        {"json": b"{not json"},
        {"json": b"\xff\xfe\xfa"},
        {"json": b""},
        {"json": b"[1, 2]"},
        {"json": b"null"},
        {"json": as_json({"captions": 5})},
        {"json": as_json({"captions": {"en": "a dog"}})},
        {"json": as_json({"regions": 5})},
        {"json": as_json({"regions": {"phrase": "a"}})},
        {"json": as_json({"regions": "none"})},
        {"json": as_json({"regions": [5]})},
        {"json": as_json({"regions": [{"phrase": "a"}]})},
        {"json": as_json({"regions": [{"phrase": "a", "bbox_xyxy_norm": [0, 0, 1]}]})},
        {"json": as_json({"regions": [{"phrase": "a", "bbox_xyxy_norm": [0, 0, 1, "x"]}]})},
        {"json": as_json({"regions": [{"phrase": "a", "bbox_xyxy_norm": None}]})},
        {"json": as_json({"regions": [{"phrase": None, "bbox_xyxy_norm": [0, 0, 1, 1]}]})},
    ],
    ids=str,
)
def test_bytes_that_are_not_what_they_should_be_make_a_bad_sample(read, members):
    with pytest.raises(BadSampleError):
        read(**members)


def test_a_shard_that_changed_after_it_was_indexed_is_refused(tmp_path):
    folder = write_shards(tmp_path / "shards", 5)
    reader = reader_of(folder)
    tar = folder / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"shard-000000\.tar.*changed"):
        reader[0]
    tar.unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar"):
        reader_of_missing = pickle.loads(pickle.dumps(reader))
        reader_of_missing[0]


def test_a_shard_cut_off_while_it_is_open_is_a_data_error_and_not_a_bad_sample(tmp_path):
    folder = write_shards(tmp_path / "shards", 5)
    reader = reader_of(folder)
    assert reader[0].key == "s0"
    with (folder / "shard-000000.tar").open("r+b") as file:
        file.truncate(600)
    with pytest.raises(DataError, match="cut off") as error:
        reader[4]
    assert not isinstance(error.value, BadSampleError)


@pytest.fixture
def failing_disk(monkeypatch):
    """Reads fail as often as ``failures`` says; ``pauses`` are those made."""

    class Disk:
        failures, pauses = 0, []

    def failing(function):
        def call(*arguments):
            if Disk.failures:
                Disk.failures -= 1
                raise OSError(5, "Input/output error")
            return function(*arguments)

        return call

    for name in ("open", "pread"):
        monkeypatch.setattr(local_tar.os, name, failing(getattr(os, name)))
    monkeypatch.setattr(local_tar.time, "sleep", Disk.pauses.append)
    return Disk


@pytest.mark.parametrize("opened", [False, True])
def test_a_failing_disk_is_asked_three_times_and_longer_and_longer_after(tmp_path, failing_disk, opened):
    reader = reader_of(write_shards(tmp_path / "shards", 5))
    expected = reader[3] if opened else None
    failing_disk.failures = 2
    assert reader[3] == (expected or reader[3])
    assert len(failing_disk.pauses) == 2 and 0 < failing_disk.pauses[0] < failing_disk.pauses[1]
    failing_disk.failures = 3
    with pytest.raises(DataError, match=r"shard-000000\.tar.*three.*Input/output error") as error:
        pickle.loads(pickle.dumps(reader))[3]
    assert not isinstance(error.value, BadSampleError)


def test_a_shard_that_is_gone_is_not_waited_for(tmp_path, failing_disk, monkeypatch):
    folder = write_shards(tmp_path / "shards", 5)
    reader = reader_of(folder)
    monkeypatch.setattr(local_tar, "load_index", lambda path, load=local_tar.load_index: (load(path), path.unlink())[0])
    with pytest.raises(DataError, match="the shard is gone"):
        reader[0]
    assert failing_disk.pauses == []
