"""Crops: their bounds, sizes and shapes, and what becomes of boxes at their edges."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from tests.tiny import random_pixels
from timix_pl.core.randomness import permutation, uniform
from timix_pl.core.sample import Region
from timix_pl.data.images.augment import Crop, crop_image, crop_regions, random_colors, random_crop, usable_regions


def region(*box, phrase="a"):
    return Region(phrase, box)


@pytest.mark.parametrize("aspect", [0.3, 1.0, 1.5, 4.0])
@pytest.mark.parametrize(("scale", "ratio"), [((0.9, 1.0), (0.75, 4 / 3)), ((0.1, 0.5), (0.5, 2.0)), ((1.0, 1.0), (1.0, 1.0))])
def test_random_crops_lie_inside_and_have_the_size_and_shape_that_was_asked_for(aspect, scale, ratio):
    for number in range(300):
        crop = random_crop(aspect, scale, ratio, False, 7, number)
        assert 0 <= crop.x0 < crop.x1 <= 1 + 1e-12 and 0 <= crop.y0 < crop.y1 <= 1 + 1e-12
        assert not crop.flip
        width, height = crop.x1 - crop.x0, crop.y1 - crop.y0
        assert ratio[0] - 1e-9 <= width * aspect / height <= ratio[1] + 1e-9
        if ratio[0] <= aspect <= ratio[1] and scale[1] < 1:
            assert scale[0] - 1e-9 <= width * height <= scale[1] + 1e-9


def test_random_crops_reach_all_sizes_and_corners():
    crops = [random_crop(1.0, (0.2, 1.0), (0.75, 4 / 3), False, 1, number) for number in range(2000)]
    areas = np.array([(crop.x1 - crop.x0) * (crop.y1 - crop.y0) for crop in crops])
    assert areas.min() < 0.22 and areas.max() > 0.95 and abs(areas.mean() - 0.58) < 0.05
    assert min(crop.x0 for crop in crops) < 0.01 and max(crop.x1 for crop in crops) > 0.99
    assert min(crop.y0 for crop in crops) < 0.01 and max(crop.y1 for crop in crops) > 0.99
    assert abs(np.mean([crop.x0 + crop.x1 for crop in crops]) - 1) < 0.03


def test_half_of_the_crops_are_flipped_and_ids_decide():
    crops = [random_crop(1.0, (0.5, 1.0), (1.0, 1.0), True, "a", number) for number in range(1000)]
    assert 420 < sum(crop.flip for crop in crops) < 580
    assert crops[5] == random_crop(1.0, (0.5, 1.0), (1.0, 1.0), True, "a", 5) != random_crop(1.0, (0.5, 1.0), (1.0, 1.0), True, "b", 5)


def test_an_image_too_long_for_the_ratio_is_cropped_in_its_middle():
    crop = random_crop(10.0, (0.9, 1.0), (0.75, 4 / 3), False, 0)
    assert (crop.y0, crop.y1) == (0, 1)
    assert crop.x0 + crop.x1 == pytest.approx(1) and (crop.x1 - crop.x0) * 10 == pytest.approx(4 / 3)


def test_cropping_takes_the_pixels_of_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_image(image, Crop(0, 0, 1, 1), (20, 30)), image)
    np.testing.assert_array_equal(crop_image(image, Crop(0.2, 0.5, 0.8, 1.0), (10, 18)), image[10:20, 6:24])
    np.testing.assert_array_equal(crop_image(image, Crop(0.2, 0.5, 0.8, 1.0, True), (10, 18)), image[10:20, 6:24][:, ::-1])


@pytest.mark.parametrize("size", [(6, 10), (17, 29), (96, 160), (6, 80), (50, 7)])
@pytest.mark.parametrize("flip", [False, True])
def test_resizing_is_pils_bicubic_of_the_crop_whether_it_shrinks_or_grows(size, flip):
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    resized = crop_image(image, Crop(0.25, 0.5, 0.75, 1.0, flip), size)
    expected = np.asarray(Image.fromarray(image[12:24, 10:30]).resize(size[::-1], Image.Resampling.BICUBIC))
    assert np.abs(resized.astype(int) - (expected[:, ::-1] if flip else expected)).mean() < 0.5


def test_a_crop_thinner_than_a_pixel_still_gives_an_image():
    image = np.arange(3 * 2 * 3, dtype=np.uint8).reshape(3, 2, 3)
    for crop in (Crop(0.99, 0.99, 1, 1), Crop(0, 0, 0.001, 0.001), Crop(0.5, 0.3, 0.500001, 0.9)):
        assert crop_image(image, crop, (8, 8)).shape == (8, 8, 3)


def test_a_box_with_less_than_half_of_its_area_left_is_dropped():
    crop = Crop(0.5, 0.0, 1.0, 1.0)
    (kept,) = crop_regions([region(0.25, 0.0, 0.75, 0.5, phrase="half"), region(0.24, 0.0, 0.75, 0.5, phrase="less")], crop)
    assert kept == Region("half", (0.0, 0.0, 0.5, 0.5))


def test_boxes_follow_the_crop_and_the_flip():
    box = region(0.3, 0.4, 0.5, 0.6)
    (moved,) = crop_regions([box], Crop(0.2, 0.2, 0.7, 1.0))
    assert moved.bbox_xyxy_norm == pytest.approx((0.2, 0.25, 0.6, 0.5))
    (moved,) = crop_regions([box], Crop(0.2, 0.2, 0.7, 1.0, True))
    assert moved.bbox_xyxy_norm == pytest.approx((0.4, 0.25, 0.8, 0.5))
    (moved,) = crop_regions([region(0.0, 0.0, 1.0, 1.0)], Crop(0.1, 0.1, 0.9, 0.9))  # it sticks out on all sides
    assert moved.bbox_xyxy_norm == (0, 0, 1, 1)


def test_only_regions_with_a_phrase_and_an_area_inside_are_usable():
    nan = float("nan")
    good = [region(0.1, 0.1, 0.2, 0.2, phrase=" a dog "), region(-0.5, 0.5, 0.5, 1.5, phrase="sticks out")]
    bad = [
        region(0.1, 0.1, 0.2, 0.2, phrase="  "),
        region(0.2, 0.1, 0.1, 0.2),  # the wrong way round
        region(0.3, 0.1, 0.3, 0.2),  # no width
        region(1.1, 0.1, 1.4, 0.2),  # outside
        region(-3.0, -2.0, -1.0, -0.1),
        region(nan, 0.1, 0.5, 0.5),
        region(0, 0, 320, 240, phrase="in pixels: clipped, it would be the whole image"),
    ]
    usable, num_unusable = usable_regions(bad + good)
    assert usable == [Region("a dog", (0.1, 0.1, 0.2, 0.2)), Region("sticks out", (0.0, 0.5, 0.5, 1.0))]
    assert num_unusable == len(bad)


PICTURE = random_pixels(40, 60, seed=3)


def planes(image):
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("kind", "strengths"),
    [("brightness", (0.4, 0, 0, 0)), ("contrast", (0, 0.4, 0, 0)), ("saturation", (0, 0, 0.6, 0)), ("hue", (0, 0, 0, 0.2))],
)
def test_each_change_of_colour_is_torchvisions(kind, strengths):
    seen = []
    for number in range(20):
        change = (2 * uniform(6, "colors", 5, number)[1 + ["brightness", "contrast", "saturation", "hue"].index(kind)] - 1) * max(strengths)
        changed = random_colors(PICTURE, strengths, 1.0, 0.0, 5, number)
        expected = getattr(reference, f"adjust_{kind}")(planes(PICTURE), change if kind == "hue" else 1 + change)
        difference = np.abs(changed.astype(int) - expected.permute(1, 2, 0).numpy().astype(int))
        assert difference.max() <= (8 if kind == "hue" else 2) and difference.mean() < 1.5
        seen.append(change)
    assert min(seen) < -max(strengths) / 2 and max(seen) > max(strengths) / 2


def test_changes_of_colour_come_one_after_the_other_in_an_order_that_is_drawn():
    names, strengths = ["brightness", "contrast", "saturation", "hue"], (0.4, 0.4, 0.4, 0.1)
    orders = set()
    for number in range(30):
        draws, order = uniform(6, "colors", 5, number), permutation(4, "colors", "order", 5, number)
        expected = planes(PICTURE)
        for place in order:
            change = (2 * draws[1 + place] - 1) * strengths[place]
            expected = getattr(reference, f"adjust_{names[place]}")(expected, change if names[place] == "hue" else 1 + change)
        changed = random_colors(PICTURE, strengths, 1.0, 0.0, 5, number)
        assert np.abs(changed.astype(int) - expected.permute(1, 2, 0).numpy().astype(int)).mean() < 3
        orders.add(tuple(order))
    assert len(orders) > 10


def test_the_share_of_images_that_lose_or_change_their_colours_is_what_was_asked_for():
    changed = [random_colors(PICTURE, (0.4, 0.4, 0.4, 0.1), 0.3, 0.0, number) for number in range(500)]
    assert 110 < sum(not np.array_equal(image, PICTURE) for image in changed) < 190
    grey = [random_colors(PICTURE, (0, 0, 0, 0), 0.8, 0.2, number) for number in range(500)]
    without = [image for image in grey if (image[..., 0] == image[..., 2]).all()]
    assert 70 < len(without) < 130
    assert all(np.array_equal(image, PICTURE) for image in grey if not (image[..., 0] == image[..., 2]).all())
    expected = reference.rgb_to_grayscale(planes(PICTURE), 3).permute(1, 2, 0).numpy()
    assert np.abs(without[0].astype(int) - expected.astype(int)).max() <= 1


def test_colours_stay_where_nothing_is_asked_for_and_ids_decide():
    assert random_colors(PICTURE, (0, 0, 0, 0), 1.0, 0.0, 1) is PICTURE
    assert random_colors(PICTURE, (0.4, 0.4, 0.4, 0.1), 0.0, 0.0, 1) is PICTURE
    one, same, other = (random_colors(PICTURE, (0.4, 0.4, 0.4, 0.1), 1.0, 0.0, *ids) for ids in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
