"""Any folder of images with text beside them."""

import json

import pytest

from data_pipelines.layouts.folder import read_folder
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError


def test_text_and_json_beside_the_image(tmp_path, make_image, read_shards):
    folder = tmp_path / "photos"
    make_image(folder / "a.jpg")
    (folder / "a.txt").write_text("first line\n\nsecond line\n")
    make_image(folder / "deep" / "b 1.PNG", image_format="PNG")
    regions = [{"phrase": "dog", "bbox_xyxy_norm": [0, 0, 0.5, 1]}]
    (folder / "deep" / "b 1.json").write_text(json.dumps({"caption": "from json", "regions": regions, "licence": "CC0"}))
    (folder / "deep" / "b 1.txt").write_text("from text")
    make_image(folder / "c.bmp", image_format="BMP")
    (folder / "c.json").write_text(json.dumps({"captions": ["one", "two"]}))
    make_shards(read_folder(folder), tmp_path / "out")
    samples = read_shards(tmp_path / "out")
    assert {key: (s["ext"], s["captions"]) for key, s in samples.items()} == {
        "a": ("jpg", ["first line", "second line"]),
        "c": ("png", ["one", "two"]),
        "deep_b_1": ("png", ["from json"]),
    }
    assert samples["deep_b_1"]["licence"] == "CC0"
    assert samples["deep_b_1"]["regions"] == [{"phrase": "dog", "bbox_xyxy_norm": [0.0, 0.0, 0.5, 1.0]}]


def test_a_shards_own_json_comes_back_unchanged(tmp_path, make_image, read_shards):
    fields = {"captions": ["a", "b"], "regions": [{"phrase": "dog", "bbox_xyxy_norm": [0.0, 0.25, 0.5, 1.0]}], "label": 3}
    make_image(tmp_path / "in" / "k.jpg")
    (tmp_path / "in" / "k.json").write_text(json.dumps(fields))
    make_shards(read_folder(tmp_path / "in"), tmp_path / "out")
    sample = read_shards(tmp_path / "out")["k"]
    assert {name: sample[name] for name in fields} == fields


def test_bad_rows_are_counted_and_named(tmp_path, make_image, read_skipped):
    folder = tmp_path / "photos"
    side_cars = {
        "good.txt": "fine",
        "list.json": "[]",
        "broken.json": "{",
        "numbers.json": '{"captions": [1]}',
        "latin.txt": b"caf\xe9",
        "nothing.txt": "\n",
        "region.json": '{"caption": "ok", "regions": [{"phrase": "x"}]}',
    }
    for name, content in side_cars.items():
        make_image((folder / name).with_suffix(".jpg"))
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    make_image(folder / "good.png", image_format="PNG")
    make_image(folder / "silent.jpg")
    (folder / "notes.txt").write_text("no image has this name")
    account = make_shards(read_folder(folder), tmp_path / "out")
    assert account.num_samples == 2
    assert read_skipped(tmp_path / "out") == [
        ("broken", "image", "unreadable side-car"),
        ("good", "image", "refused by the shard writer"),
        ("latin", "image", "unreadable side-car"),
        ("list", "image", "malformed side-car"),
        ("notes", "image", "no image"),
        ("nothing", "image", "no caption and no region"),
        ("numbers", "image", "malformed side-car"),
        ("region", "part", "malformed region"),
        ("silent", "image", "no caption and no region"),
    ]


def test_nothing_usable_is_one_message_with_the_reasons(tmp_path, make_image):
    make_image(tmp_path / "photos" / "a.jpg")
    with pytest.raises(DataError, match=r"0 samples written, 1 image left out: 1 no caption and no region.*skipped\.jsonl"):
        make_shards(read_folder(tmp_path / "photos"), tmp_path / "out")
    assert "no caption" in (tmp_path / "out" / "skipped.jsonl").read_text()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no image in this folder"):
        read_folder(tmp_path)
