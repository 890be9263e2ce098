"""Samples for evaluation: in order, whole, with the centre crop that everybody uses."""

import numpy as np
import pytest
from open_clip import image_transform
from PIL import Image

from tests.tiny import encoded_image, random_pixels, write_shards
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.shards.writer import ShardWriter


def test_every_sample_comes_once_in_order(tmp_path):
    dataset = EvaluationSet(str(write_shards(tmp_path / "shards", 20, num_regions=1)), (32, 48))
    assert [dataset[number].key for number in range(len(dataset))] == [f"s{number}" for number in range(20)]
    item = dataset[3]
    assert item.image.shape == (3, 32, 48) and len(item.captions) == 2 and len(item.regions) == 1


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (50, 50), (20, 31), (31, 20), (53, 97), (97, 54), (97, 55)])
def test_pixels_equal_open_clips_resize_and_centre_crop(tmp_path, size):
    picture = random_pixels(*size, seed=0)
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("a", encoded_image(picture, "PNG"), "png", extra={"label": 3})
    item = EvaluationSet(str(tmp_path / "shards"), (24, 24))[0]
    transform = image_transform(24, is_train=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert item.extra == {"label": 3}
    assert item.image.equal((transform(Image.fromarray(picture)) * 255).round().byte())


def test_boxes_are_those_of_the_crop(tmp_path):
    """A white box on a wide black picture; the sides that the crop cuts off take a box with them."""
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[10:30, 30:50] = 255
    with ShardWriter(tmp_path / "shards") as writer:
        boxes = [
            Region("white", (30 / 80, 0.25, 50 / 80, 0.75)),
            Region("gone", (0.0, 0.0, 0.2, 1.0)),
            Region("half", (0.0, 0.0, 0.5, 1.0)),
        ]
        writer.write("a", encoded_image(picture, "PNG"), "png", regions=boxes)
    item = EvaluationSet(str(tmp_path / "shards"), (40, 40))[0]
    assert [region.phrase for region in item.regions] == ["white", "half"]
    assert item.regions[0].bbox_xyxy_norm == pytest.approx((0.25, 0.25, 0.75, 0.75))
    assert item.regions[1].bbox_xyxy_norm == pytest.approx((0.0, 0.0, 0.5, 1.0))
    assert (item.image[:, 10:30, 10:30] == 255).all() and item.image.sum() == 3 * 20 * 20 * 255


def test_a_sample_that_cannot_be_decoded_is_named(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("fine", encoded_image(random_pixels(40, 60, 0), "PNG"), "png")
        writer.write("broken", b"not an image", "jpg")
    dataset = EvaluationSet(str(tmp_path / "shards"), (32, 48))
    assert dataset[0].key == "fine"
    with pytest.raises(DataError, match=r"shard-000000\.tar: broken: .*cannot be decoded"):
        dataset[1]


def test_missing_shards_are_told_by_key(tmp_path):
    with pytest.raises(DataError, match=r"^shards="):
        EvaluationSet(str(tmp_path / "nowhere"), (32, 48))
    with pytest.raises(DataError, match=r"data\.zero_shot_shards="):
        EvaluationSet(str(tmp_path / "nowhere"), (32, 48), key="data.zero_shot_shards")
