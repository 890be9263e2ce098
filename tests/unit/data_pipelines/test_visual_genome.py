"""Visual Genome's JSON files, versions 1.2 and 1.4."""

import json

import pytest

from data_pipelines.layouts.coco import read_coco
from data_pipelines.layouts.visual_genome import read_visual_genome
from data_pipelines.shards import make_shards
from data_pipelines.stages import take_part
from timix_pl.core.errors import DataError

URL = "https://cs.stanford.edu/people/rak248/VG_100K{}/{}.jpg"
IMAGE_DATA = [
    {"image_id": 1, "url": URL.format("_2", 1), "width": 40, "height": 20, "coco_id": None, "flickr_id": None},
    {"image_id": 2, "url": URL.format("", 2), "width": 40, "height": 20, "coco_id": 9, "flickr_id": 5},
]
REGIONS = [
    {"id": 1, "regions": [{"region_id": 7, "image_id": 1, "x": 10, "y": 5, "width": 20, "height": 10, "phrase": "a brown dog\n"}]},
    {"id": 2, "regions": []},
    {"id": 3, "regions": [{"region_id": 8, "image_id": 3, "x": 0, "y": 0, "width": 4, "height": 4, "phrase": "lost"}]},
]
OBJECTS = [
    {"image_id": 1, "objects": [{"object_id": 1, "x": -4, "y": 0, "w": 8, "h": 20, "names": ["tree", "oak"], "synsets": ["tree.n.01"]}]},
    {"image_id": 2, "objects": [{"object_id": 2, "x": 0, "y": 0, "w": 0, "h": 5, "names": ["thread"], "synsets": []}]},
]


@pytest.fixture
def collection(tmp_path, make_image):
    make_image(tmp_path / "VG_100K_2" / "1.jpg")
    make_image(tmp_path / "VG_100K" / "2.jpg")
    for name, content in {"image_data": IMAGE_DATA, "regions": REGIONS, "objects": OBJECTS}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def read(collection, **files):
    return read_visual_genome(collection, collection / "image_data.json", **{name: collection / f"{name}.json" for name in files})


def test_regions_and_objects_become_phrases_with_boxes(collection, read_shards, read_skipped):
    make_shards(read(collection, regions=True, objects=True), collection / "out")
    (sample,) = read_shards(collection / "out").values()
    assert sample["regions"] == [
        {"phrase": "a brown dog", "bbox_xyxy_norm": [0.25, 0.25, 0.75, 0.75]},
        {"phrase": "tree", "bbox_xyxy_norm": [0.0, 0.0, 0.1, 1.0]},
    ]
    assert (sample["captions"], sample["text"], sample["image_id"]) == ([], None, 1)
    assert read_skipped(collection / "out") == [
        ("vg_2", "image", "no caption and no region"),
        ("image-3", "image", "regions of an image that is not listed"),
    ]


def test_photos_may_lie_in_one_folder(collection, read_shards):
    (collection / "VG_100K_2" / "1.jpg").rename(collection / "1.jpg")
    (collection / "VG_100K_2").rmdir()
    make_shards(read(collection, regions=True), collection / "out")
    assert list(read_shards(collection / "out")) == ["vg_1"]


def test_a_photo_of_coco_falls_on_the_same_side_as_in_coco(collection):
    vg = read(collection, objects=True)[1]
    images = [{"id": 9, "file_name": "000000000009.jpg"}]
    (collection / "captions.json").write_text(json.dumps({"images": images, "annotations": []}))
    (coco,) = read_coco(collection, collection / "captions.json")
    sides = [[bool(list(take_part([row], "val", i / 50))) for i in range(50)] for row in (vg, coco)]
    assert sides[0] == sides[1]


def test_neither_regions_nor_objects_is_refused(collection):
    with pytest.raises(DataError, match=r"region_descriptions\.json, objects\.json, or both"):
        read(collection)


def test_files_given_in_each_others_place_are_refused_by_name(collection):
    with pytest.raises(DataError, match=r"objects\.json: not in the layout of Visual Genome's regions"):
        read_visual_genome(collection, collection / "image_data.json", regions=collection / "objects.json")
