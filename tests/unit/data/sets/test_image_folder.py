"""Folders of labelled images, beside torchvision's ImageFolder."""

import logging
import os

import pytest
import torch
from torchvision.datasets import ImageFolder as FolderOfTorchvision

from tests.tiny import encoded_image, random_pixels
from timix_pl.core.errors import DataError
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.data.shards.reader import BadSampleError
from timix_pl.data.shards.sources import is_image_folder
from timix_pl.data.shards.writer import ShardWriter

SIZE = (16, 24)


@pytest.fixture
def folder(tmp_path):
    files = ["n02/b.jpg", "n02/a.png", "n02/deeper/c.JPEG", "n10/x.jpg", "n01/y.jpg", "n01/z/0.jpg", "n01/z.jpg"]
    files += [f"{name}/0.png" for name in ("q", "p", "s", "r", "n03", "n04")]  # so many that no disk lists them in order by chance
    for number, name in enumerate(files):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(random_pixels(30, 40 + number, number), "PNG" if name.endswith("png") else "JPEG"))
    return tmp_path / "images"


def test_images_and_classes_are_those_of_torchvision(folder):
    ours, theirs = ImageFolder(folder, SIZE), FolderOfTorchvision(folder)
    assert ours.class_folders == theirs.classes == ["n01", "n02", "n03", "n04", "n10", "p", "q", "r", "s"]
    assert [(os.path.join(folder, item.key), item.extra["label"]) for item in ours] == theirs.samples


def test_pixels_are_those_of_the_same_images_in_shards(folder, tmp_path):
    ours = ImageFolder(folder, SIZE)
    with ShardWriter(tmp_path / "shards") as writer:
        for number, item in enumerate(ours):
            writer.write(f"k{number}", (folder / item.key).read_bytes(), "jpg", captions=["a"])
    in_shards = EvaluationSet(str(tmp_path / "shards"), SIZE)
    assert len(ours) == len(in_shards) and ours[0].image.shape == (3, *SIZE)
    assert all(torch.equal(a.image, b.image) for a, b in zip(ours, in_shards, strict=True))


def test_other_files_are_told_of_and_a_class_without_images_is_refused(folder, caplog):
    (folder / "n02" / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(ImageFolder(folder, SIZE)) == 13
    assert "1 files that are no images" in caplog.text
    (folder / ".cache").mkdir()
    (folder / "n05").mkdir()
    with pytest.raises(DataError, match=r"^folder=.*the class folder n05 has no images"):
        ImageFolder(folder, SIZE)


def test_an_image_that_cannot_be_used_is_named(folder):
    (folder / "n01" / "y.jpg").write_bytes(b"no image")
    with pytest.raises(BadSampleError, match=r"n01/y\.jpg: the image cannot be decoded.*repair or remove it"):
        ImageFolder(folder, SIZE)[0]
    with pytest.raises(BadSampleError, match=r"n01/z\.jpg: .*more than `max_image_mb=1e-05`"):
        ImageFolder(folder, SIZE, max_image_mb=1e-5)[1]


def test_what_is_taken_for_a_folder_of_classes(folder, tmp_path):
    assert is_image_folder(str(folder)) and is_image_folder(folder)
    (folder / "classes.json").write_text("[]")
    assert is_image_folder(folder)
    (folder / "shard-0.tar").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for spec in (folder, tmp_path / "empty", tmp_path / "missing", "s3://bucket/a", [str(folder)], None):
        assert not is_image_folder(spec)
