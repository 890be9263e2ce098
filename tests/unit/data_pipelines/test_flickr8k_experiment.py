"""What experiment=flickr8k trains and is judged on."""

import json

import pytest

from data_pipelines import prepare_flickr8k
from timix_pl.core.errors import DataError


@pytest.fixture
def published(tmp_path, make_image):
    """The two collections as published, in little."""
    root = tmp_path / "real"
    (root / "coco" / "annotations").mkdir(parents=True)
    for i in range(6):
        make_image(root / "flickr8k" / "Images" / f"{i}.jpg", seed=i)
    (root / "flickr8k" / "Flickr8k.token.txt").write_text("".join(f"{i}.jpg#{k}\tcaption {k} of {i}\n" for i in range(6) for k in range(5)))
    (root / "flickr8k" / "Flickr_8k.trainImages.txt").write_text("".join(f"{i}.jpg\n" for i in range(4)))
    (root / "flickr8k" / "Flickr_8k.devImages.txt").write_text("4.jpg\n5.jpg\n")
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 40, "height": 20} for i in range(30)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0} for i in range(30)]
    for image in images:
        make_image(root / "coco" / "train2017" / image["file_name"])
    instances = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(instances))
    (root / "coco" / "annotations" / "captions_train2017.json").write_text(json.dumps({"images": images, "annotations": []}))
    return root


def test_the_four_sets(published, tmp_path, read_shards):
    folders = prepare_flickr8k(published, tmp_path / "cache")
    sets = {name: read_shards(folder) for name, folder in folders.items()}
    assert [list(sets[name]) for name in ("train", "val")] == [["0", "1", "2", "3"], ["4", "5"]]
    assert len(sets["regions"]) + len(sets["grounding"]) == 30
    assert not sets["regions"].keys() & sets["grounding"].keys()
    assert len(sets["regions"]) > len(sets["grounding"]) > 0


def test_the_second_call_finds_them_also_without_the_data(published, tmp_path):
    first = prepare_flickr8k(published, tmp_path / "cache")
    times = {path: path.stat().st_mtime_ns for path in first["train"].iterdir()}
    assert prepare_flickr8k(published, tmp_path / "cache") == first
    assert prepare_flickr8k(None, tmp_path / "cache") == first
    assert {path: path.stat().st_mtime_ns for path in first["train"].iterdir()} == times


def test_shards_of_other_data_are_refused(published, tmp_path):
    prepare_flickr8k(published, tmp_path / "cache")
    (published / "flickr8k" / "Flickr_8k.devImages.txt").write_text("4.jpg\n")
    with pytest.raises(DataError, match=r"not made from the data in .*data\.cache_dir"):
        prepare_flickr8k(published, tmp_path / "cache")


def test_a_missing_file_is_named_with_the_variable_and_nothing_is_left(published, tmp_path):
    (published / "flickr8k" / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(DataError, match=r"TIMIX_REAL_DATA=.*devImages\.txt is missing"):
        prepare_flickr8k(published, tmp_path / "cache")
    with pytest.raises(DataError, match="TIMIX_REAL_DATA is not set"):
        prepare_flickr8k(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_failure_half_way_leaves_no_shards(published, tmp_path):
    (published / "coco" / "annotations" / "instances_train2017.json").write_text("{")
    with pytest.raises(DataError, match="not a JSON file"):
        prepare_flickr8k(published, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.real_data
def test_the_real_collections(real_data, tmp_path, read_shards):
    sets = {name: read_shards(folder) for name, folder in prepare_flickr8k(real_data, tmp_path).items()}
    assert (len(sets["train"]), len(sets["val"])) == (6000, 1000)
    assert not sets["regions"].keys() & sets["grounding"].keys()
    assert min(len(sets["regions"]), len(sets["grounding"])) > 50
