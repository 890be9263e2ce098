"""Bad input as it comes in real collections: never fatal by surprise, never silent, replaced by the same sample everywhere."""

import io
import os
import struct
import tarfile
import tracemalloc
import zlib

import pytest
import torch

from data_pipelines.cli import main
from tests.tiny import GRID, IMAGE_SIZE_PX, encoded_image, random_pixels
from timix_pl.core.errors import DataError
from timix_pl.data.loader import Loader
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards import local_tar
from timix_pl.data.shards.reader import BadSampleError


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def png_bomb(side_px):
    """A black picture of ``side_px`` squared, one bit a pixel: a few kilobytes that decode to 400 megapixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side_px // 8 + 1) * side_px), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def photo(seed, image_format="JPEG"):
    return encoded_image(random_pixels(40, 60, seed), image_format)


GOOD = [(f"good{number}.{ext}", content) for number in range(8) for ext, content in (("jpg", photo(number)), ("txt", b"a ring"))]
BAD = {
    "cut": (("jpg", photo(1)[:300]), ("txt", b"a")),
    "cut_png": (("png", photo(2, "PNG")[:500]), ("txt", b"a")),
    "empty": (("jpg", b""), ("txt", b"a")),
    "noise": (("webp", b"\0\1\2" * 99), ("txt", b"a")),
    "latin": (("jpg", photo(3)), ("txt", "größer".encode("latin-1"))),
    "mute": (("jpg", photo(4)),),
    "blank": (("jpg", photo(4)), ("txt", b"")),
    "json": (("jpg", photo(5)), ("json", b'{"captions": ')),
    "empty_json": (("jpg", photo(5)), ("json", b"")),
    "bomb": (("png", png_bomb(20_000)), ("txt", b"a")),
    "heavy": (("png", photo(6, "PNG") + bytes(300_000)), ("txt", b"a")),
    "long": (("jpg", photo(7)), ("txt", b"word " * 60_000)),
}
REASONS = {
    "cut": "the image cannot be decoded",
    "cut_png": "the image cannot be decoded",
    "empty": "the image cannot be decoded",
    "noise": "the image cannot be decoded",
    "latin": "the caption is not UTF-8",
    "mute": "no caption",
    "blank": "no caption",
    "json": "the JSON cannot be parsed",
    "empty_json": "the JSON cannot be parsed",
    "bomb": "20000 x 20000 pixels, more than `max_image_px=100000000`",
    "heavy": "the image has 0.3 MB, more than `max_image_mb=0.2`",
    "long": "the text has 0.3 MB, more than `max_image_mb=0.2`",
}
LEFT_OUT = [  # members that no sample is made of
    ("text_only.txt", b"no image belongs to this"),
    ("good0.jpg", b"the key's second image"),
    ("../../escaped.jpg", photo(8)),
    ("/tmp/absolute.jpg", photo(9)),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """One tar with all that is bad in it, and eight good samples."""
    bad = [(f"{key}.{ext}", content) for key, members in BAD.items() for ext, content in members]
    return write_tar(tmp_path_factory.mktemp("damaged") / "damaged.tar", GOOD + bad + LEFT_OUT)


def stream(shards, **options):
    return SampleStream(str(shards), key="data.train_shards", seed=3, name="train", window_shards=2, **options)


def pair_set(shards, rank=0, world_size=1, **options):
    def tokenizer(texts):
        return torch.zeros(len(texts), 4, dtype=torch.long)

    return PairSet(
        stream(shards, **options),
        None,
        tokenizer,
        image_size_px=IMAGE_SIZE_PX,
        patch_grid=GRID,
        global_batch_size=20,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_kind_of_damage_is_named_and_replaced_by_the_same_sample_everywhere(damaged, world_size):
    whole = pair_set(damaged, max_image_mb=0.2)[0]
    parts = [pair_set(damaged, rank, world_size, max_image_mb=0.2)[0] for rank in range(world_size)]
    assert [key for part in parts for key in part.keys] == whole.keys
    assert torch.cat([part.images for part in parts]).equal(whole.images)
    assert len(whole.keys) == 20 and set(whole.keys) == {f"good{number}" for number in range(8)}
    problems = [problem for part in parts for problem in part.problems]
    assert problems == whole.problems
    assert {problem["key"] for problem in problems} == set(REASONS)
    for problem in problems:
        assert REASONS[problem["key"]] in problem["reason"]
        assert (problem["shard"], problem["outcome"]) == ("damaged.tar", "replaced")


def test_the_index_reports_what_no_sample_is_made_of(damaged, capsys):
    assert main(["index", str(damaged), "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[-1] == f"{damaged}: 20 samples in 1 shard"
    for line, (name, reason) in zip(
        sorted(lines[:-1]),
        [
            ("../../escaped.jpg", "leads out of the tar"),
            ("/tmp/absolute.jpg", "leads out of the tar"),
            ("good0.jpg", "its sample already has such a member"),
            ("text_only", "no image"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{damaged}: {name}: ") and reason in line


def test_a_bomb_is_refused_before_a_pixel_is_decoded(tmp_path):
    """One bit a pixel is 50 MB when decoded, three bytes a pixel 1.2 GB."""
    tar = write_tar(tmp_path / "x.tar", [("bomb.png", png_bomb(20_000)), ("bomb.txt", b"a")])
    steps = pair_set(tar)
    sample = steps.pairs.reader[0]
    tracemalloc.start()
    with pytest.raises(BadSampleError, match=r"20000 x 20000 pixels.*`max_image_px="):
        steps.use_pair(sample, (0, 0))
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak_mb < 5


def test_a_member_of_absurd_size_is_never_read(tmp_path, monkeypatch):
    """A gigabyte, which lies on the disk as a hole."""
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        huge = tarfile.TarInfo("huge.jpg")
        huge.size = 2**30
        file.write(huge.tobuf())
        file.seek(2**30, os.SEEK_CUR)
        good = io.BytesIO()
        with tarfile.open(fileobj=good, mode="w") as tar:
            for name, content in [("huge.txt", b"a"), *GOOD]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        file.write(good.getvalue())
    sizes = []
    monkeypatch.setattr(local_tar.os, "pread", lambda fd, size, at, read=os.pread: sizes.append(size) or read(fd, size, at))
    batch = pair_set(path)[0]
    assert {problem["reason"] for problem in batch.problems} == {"the image has 1073.7 MB, more than `max_image_mb=100`"}
    assert "huge" not in batch.keys and 0 < max(sizes) < 10_000
    with pytest.raises(DataError, match=r"x\.tar: huge: the image has 1073\.7 MB.*evaluation leaves nothing out"):
        EvaluationSet(str(path), IMAGE_SIZE_PX)[0]


def test_evaluation_names_the_sample_whose_text_is_bad(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("latin.jpg", photo(0)), ("latin.txt", b"\xff")])
    with pytest.raises(DataError, match=r"x\.tar: latin: the caption is not UTF-8"):
        EvaluationSet(str(tar), IMAGE_SIZE_PX)[0]


@pytest.fixture
def shards(tmp_path):
    for shard in range(4):
        write_tar(tmp_path / f"{shard}.tar", [(f"{shard}-{name}", content) for name, content in GOOD])
    return tmp_path


def truncate(path):
    os.truncate(path, 3000)


def index_anew(path):
    write_tar(path, GOOD[:6])
    assert main(["index", str(path), "--jobs", "1"]) == 0


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (os.unlink, "no such shard"),
        (truncate, "cut off after it was indexed|has changed since it was indexed"),
        (index_anew, "changed and indexed again after this run started"),
    ],
)
def test_a_shard_that_is_harmed_during_the_run_stops_it_by_name(shards, harm, message, num_workers):
    """32 samples, 20 a step; the last window is not open yet after the first step."""
    steps = pair_set(shards)
    read = {key.split("-")[0] for key in steps[0].keys}
    last = max(set("0123") - read, default="3")
    assert steps.pairs.load(0, 20, lambda sample, ids: sample.shard, [])
    harm(shards / f"{last}.tar")
    with pytest.raises(DataError, match=rf"{last}\.tar: .*({message})") as caught:
        for _ in Loader(steps, sampler=range(1, 4), num_workers=num_workers):
            pass
    assert not isinstance(caught.value, BadSampleError)


def test_a_shard_that_is_cut_while_it_is_open_stops_the_run(shards):
    reader = stream(shards).reader
    assert reader[7].key == "0-good7"
    truncate(shards / "0.tar")
    with pytest.raises(DataError, match=r"0\.tar: .* of .* bytes at .*; the shard was cut off after it was indexed") as caught:
        reader[7]
    assert not isinstance(caught.value, BadSampleError)


def test_an_index_on_a_failing_disk_is_asked_three_times(shards, monkeypatch):
    reader, calls = stream(shards).reader, []

    def failing(path):
        calls.append(path)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(local_tar, "load_index", failing)
    monkeypatch.setattr(local_tar.time, "sleep", lambda pause_s: None)
    with pytest.raises(DataError, match=r"0\.tar: three tries .*Input/output error"):
        reader[0]
    assert len(calls) == 3
