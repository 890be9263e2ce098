"""Patch labels against exact fractions, and against pixels that really went through the crop and the flip."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from tests.tiny import GRID, IMAGE_SIZE_PX, encoded_image
from timix_pl.core.sample import Region
from timix_pl.data.images.augment import Crop, crop_fills, crop_image, crop_regions
from timix_pl.data.images.decode import EncodedImage
from timix_pl.data.sets.patch_labels import patch_labels


def cover(box, row, column, grid):
    """The exact share of a patch that a box of fractions covers."""

    def overlap(low, high, cell, count):
        return max(min(high, Fraction(cell + 1, count)) - max(low, Fraction(cell, count)), Fraction(0)) * count

    return overlap(box[1], box[3], row, grid[0]) * overlap(box[0], box[2], column, grid[1])


def exact_labels(box, grid, min_cover):
    covers = [[cover(box, row, column, grid) for column in range(grid[1])] for row in range(grid[0])]
    return [float(c > 0 and c >= min_cover) for row in covers for c in row]


@pytest.mark.parametrize("min_cover", [Fraction(0), Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(1)])
@pytest.mark.parametrize("grid", [(4, 6), (7, 7), (1, 5), (13, 3), (14, 14)])
def test_equal_exact_fractions(grid, min_cover):
    """Edges on patch borders, on quarters of patches, and anywhere."""
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(300):
        parts = [count * int(rng.choice([1, 4, 10, 37])) for count in (grid[1], grid[0])]
        (x0, x1), (y0, y1) = (sorted(rng.choice(part + 1, 2, replace=False).tolist()) for part in parts)
        boxes.append((Fraction(x0, parts[0]), Fraction(y0, parts[1]), Fraction(x1, parts[0]), Fraction(y1, parts[1])))
    labels = patch_labels(torch.tensor([[float(edge) for edge in box] for box in boxes]), grid, float(min_cover))
    assert labels.shape == (300, grid[0] * grid[1])
    for box, row in zip(boxes, labels.tolist(), strict=True):
        assert row == exact_labels(box, grid, min_cover), box


def test_a_box_that_ends_on_a_border_does_not_touch_the_next_patch():
    for count in range(1, 33):
        for edge in range(1, count):
            labels = patch_labels(torch.tensor([[0, 0, edge / count, 1], [edge / count, 0, 1, 1]]), (1, count))
            assert labels.sum(1).tolist() == [edge, count - edge], (edge, count)


def test_a_tiny_box_touches_its_patch_alone():
    assert patch_labels(torch.tensor([[0.51, 0.51, 0.52, 0.52]]), (2, 2)).tolist() == [[0, 0, 0, 1]]
    assert patch_labels(torch.tensor([[0.51, 0.51, 0.52, 0.52]]), (2, 2), 0.1).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("min_cover", [Fraction(0), Fraction(1, 3), Fraction(1)])
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_moved_by_crops_and_flips_equal_patches_moved_the_other_way(flip, min_cover):
    """Each patch of the crop is laid back onto the original image, exactly, and compared with the box there."""
    rng = np.random.default_rng(1)
    num_dropped = 0
    for _ in range(200):
        (cx0, cx1), (cy0, cy1), (bx0, bx1), (by0, by1) = (
            sorted(Fraction(int(n), 64) for n in rng.choice(65, 2, replace=False)) for _ in range(4)
        )
        crop = Crop(float(cx0), float(cy0), float(cx1), float(cy1), flip)
        moved = crop_regions([Region("a", (float(bx0), float(by0), float(bx1), float(by1)))], crop)
        inside = max(min(bx1, cx1) - max(bx0, cx0), 0) * max(min(by1, cy1) - max(by0, cy0), 0)
        if inside < (bx1 - bx0) * (by1 - by0) / 2:
            assert moved == []
            num_dropped += 1
            continue
        labels = patch_labels(torch.tensor([moved[0].bbox_xyxy_norm]), GRID, float(min_cover))[0].view(GRID)
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                there = GRID[1] - 1 - column if flip else column
                x0, x1 = (cx0 + (cx1 - cx0) * Fraction(there + n, GRID[1]) for n in (0, 1))
                y0, y1 = (cy0 + (cy1 - cy0) * Fraction(row + n, GRID[0]) for n in (0, 1))
                both = max(min(bx1, x1) - max(bx0, x0), 0) * max(min(by1, y1) - max(by0, y0), 0)
                share = both / ((x1 - x0) * (y1 - y0))
                assert labels[row, column] == float(share > 0 and share >= min_cover)
    assert 20 < num_dropped < 180


@pytest.mark.parametrize("flip", [False, True])
def test_labels_lie_where_the_pixels_are(flip):
    """A white box on black, encoded, decoded, cropped and flipped: the labelled patches are the white ones."""
    rng = np.random.default_rng(2)
    num_seen = 0
    for number in range(40):
        x0, y0, x1, y1 = (int(n) for n in (*rng.integers(0, [150, 100]), *rng.integers([160, 110], [240, 160])))
        picture = np.zeros((160, 240, 3), np.uint8)
        picture[y0:y1, x0:x1] = 255
        crop = Crop(*rng.uniform(0, 0.2, 2), *rng.uniform(0.8, 1, 2), flip)
        image_format, ext = (("PNG", "png"), ("JPEG", "jpg"))[number % 2]
        encoded = EncodedImage(encoded_image(picture, image_format), ext, max_image_px=10**6)
        decoded = encoded.decode(partial(crop_fills, crop, IMAGE_SIZE_PX))
        seen = crop_image(decoded, crop, IMAGE_SIZE_PX).mean(2) / 255
        whiteness = seen.reshape(GRID[0], 8, GRID[1], 8).mean((1, 3))
        moved = crop_regions([Region("white", (x0 / 240, y0 / 160, x1 / 240, y1 / 160))], crop)
        if not moved:
            continue
        labels = patch_labels(torch.tensor([moved[0].bbox_xyxy_norm]), GRID, 0.5)[0].view(GRID).numpy()
        sure = np.abs(whiteness - 0.5) > 0.08
        assert (labels == (whiteness > 0.5))[sure].all()
        num_seen += int(sure.sum())
    assert num_seen > 500
