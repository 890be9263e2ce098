"""COCO's JSON, with boxes worked out by hand, and its split by image."""

import json

import pytest

from data_pipelines.layouts.coco import read_coco
from data_pipelines.shards import make_shards
from data_pipelines.stages import take_part
from timix_pl.core.errors import DataError

IMAGES = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 40, "height": 20} for i in (9, 5, 7)]
INSTANCES = {
    "images": IMAGES,
    "categories": [{"id": 1, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 90, "bbox": [10, 5, 20, 10], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [30, 10, 20, 20], "iscrowd": 0},
        {"id": 3, "image_id": 5, "category_id": 1, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        {"id": 4, "image_id": 5, "category_id": 1, "bbox": [3, 3, 0, 5], "iscrowd": 0},
        {"id": 5, "image_id": 5, "category_id": 1, "bbox": [41, 0, 5, 5], "iscrowd": 0},
        {"id": 6, "image_id": 9, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 0},
        {"id": 7, "image_id": 77, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 0},
    ],
}
CAPTIONS = {"images": IMAGES, "annotations": [{"id": 1, "image_id": 9, "caption": "A dog."}, {"id": 2, "image_id": 9, "caption": "Dog "}]}


@pytest.fixture
def collection(tmp_path, make_image):
    for image in IMAGES:
        make_image(tmp_path / "images" / image["file_name"])
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    return tmp_path


def test_boxes_become_shares_of_the_image_with_category_names(collection, read_shards):
    make_shards(read_coco(collection / "images", instances=collection / "instances.json"), collection / "out")
    assert read_shards(collection / "out")["000000000005"]["regions"] == [
        {"phrase": "toothbrush", "bbox_xyxy_norm": [0.25, 0.25, 0.75, 0.75]},
        {"phrase": "dog", "bbox_xyxy_norm": [0.75, 0.5, 1.0, 1.0]},
    ]


def test_what_is_left_out_is_named(collection, read_skipped):
    make_shards(read_coco(collection / "images", instances=collection / "instances.json"), collection / "out")
    assert read_skipped(collection / "out") == [
        ("000000000005", "part", "crowd box"),
        ("000000000005", "part", "box empty, outside the image, or in pixels"),
        ("000000000005", "part", "box empty, outside the image, or in pixels"),
        ("000000000007", "image", "no caption and no region"),
        ("image-77", "image", "annotations of an image that is not listed"),
    ]


def test_captions_and_instances_meet_in_one_sample(collection, read_shards):
    rows = read_coco(collection / "images", collection / "captions.json", collection / "instances.json")
    make_shards(rows, collection / "out")
    sample = read_shards(collection / "out")["000000000009"]
    assert (sample["captions"], sample["text"]) == (["A dog.", "Dog"], "A dog.")
    assert [region["phrase"] for region in sample["regions"]] == ["dog"]
    assert (sample["source"], sample["image_id"]) == ("coco", 9)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', json.dumps(INSTANCES | {"categories": []})])
def test_a_file_in_another_layout_is_refused_by_name(collection, content):
    (collection / "instances.json").write_text(content)
    with pytest.raises(DataError, match=r"instances\.json: not "):
        read_coco(collection / "images", instances=collection / "instances.json")


def test_missing_arguments_files_and_folders(collection):
    with pytest.raises(DataError, match="give the captions JSON, the instances JSON, or both"):
        read_coco(collection / "images")
    with pytest.raises(DataError, match=r"nope\.json: cannot be read"):
        read_coco(collection / "images", captions=collection / "nope.json")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_coco(collection / "nowhere", captions=collection / "captions.json")


@pytest.mark.real_data
def test_coco_as_published(real_data, tmp_path, read_shards):
    folder = real_data / "coco"
    instances = folder / "annotations" / "instances_train2017.json"
    rows = read_coco(folder / "train2017", folder / "annotations" / "captions_train2017.json", instances)
    parts = {part: make_shards(rows, tmp_path / part, part=part) for part in ("train", "val")}
    train, val = (read_shards(tmp_path / part) for part in ("train", "val"))
    content = json.loads(instances.read_text())
    annotated = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    assert not train.keys() & val.keys()
    assert {s["image_id"] for s in (train | val).values() if s["regions"]} == annotated
    assert 0.1 < len(val) / len(train | val) < 0.3
    boxes = [a for a in content["annotations"] if a["image_id"] == 9 and not a["iscrowd"]]
    width, height = next((i["width"], i["height"]) for i in content["images"] if i["id"] == 9)
    sample = (train | val)["000000000009"]
    for annotation, region in zip(boxes, sample["regions"], strict=True):
        x0, y0, x1, y1 = region["bbox_xyxy_norm"]
        assert [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height] == pytest.approx(annotation["bbox"], abs=0.01)
    assert sum(account.rows_left_out.total() for account in parts.values()) == len(content["images"]) - len(train | val)


def test_take_part_is_a_partition_that_does_not_depend_on_the_other_rows(collection):
    rows = read_coco(collection / "images", instances=collection / "instances.json")
    parts = [list(take_part(rows, part, 0.5)) for part in ("train", "val")]
    assert sorted(row.key for part in parts for row in part) == sorted(row.key for row in rows)
    for row in rows:
        assert [bool(list(take_part([row], part, 0.5))) for part in ("train", "val")] == [row in part for part in parts]
