"""Crops and flips that move boxes along."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from timix_pl.core.randomness import uniform
from timix_pl.core.types import Region

cv2.setNumThreads(0)

_MIN_KEPT_AREA_FRAC = 0.5
MAX_EDGE = 2.0
"""An annotator's box may reach over the image's edge; one that reaches farther was written in pixels."""


class Crop(NamedTuple):
    """A rectangle of an image as shares of its width and height, and whether it is flipped left to right afterwards."""

    x0: float
    y0: float
    x1: float
    y1: float
    flip: bool = False


def random_crop(aspect: float, scale: Sequence[float], ratio: Sequence[float], flip: bool, *ids: int | str) -> Crop:
    """A random resized crop: area and aspect ratio drawn as torchvision's RandomResizedCrop does, ten tries, then a centre crop.

    Args:
        aspect: width of the image over its height.
        scale: smallest and largest share of the area; ``ratio``: of the aspect ratio.
        ids: what the draw is for.
    """
    draws = uniform(41, "crop", *ids)
    flipped = bool(flip and draws[40] < 0.5)
    for area, shape, left, top in draws[:40].reshape(10, 4):
        area_frac = scale[0] + area * (scale[1] - scale[0])
        shape = math.exp(math.log(ratio[0]) + shape * (math.log(ratio[1]) - math.log(ratio[0])))
        width, height = math.sqrt(area_frac * shape / aspect), math.sqrt(area_frac * aspect / shape)
        if width <= 1 and height <= 1:
            x0, y0 = left * (1 - width), top * (1 - height)
            return Crop(x0, y0, x0 + width, y0 + height, flipped)
    width = min(1.0, ratio[1] / aspect)
    height = min(1.0, aspect / ratio[0])
    return Crop((1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2, flipped)


def crop_image(image: NDArray[np.uint8], crop: Crop, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop (H W 3), resized to ``size_px`` (height, width): by area averaging where it shrinks, bicubic where it grows."""
    height, width = image.shape[:2]
    y0, x0 = min(round(crop.y0 * height), height - 1), min(round(crop.x0 * width), width - 1)
    y1, x1 = max(round(crop.y1 * height), y0 + 1), max(round(crop.x1 * width), x0 + 1)
    part = image[y0:y1, x0:x1]
    shrinks = part.shape[0] >= size_px[0] and part.shape[1] >= size_px[1]
    resized: NDArray[Any] = cv2.resize(part, (size_px[1], size_px[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized[:, ::-1] if crop.flip else resized


def crop_regions(regions: Sequence[Region], crop: Crop) -> list[Region]:
    """The regions as seen in the crop; one with less than half of its area left is dropped."""
    moved = []
    width, height = crop.x1 - crop.x0, crop.y1 - crop.y0
    for region in regions:
        x0, y0, x1, y1 = region.bbox_xyxy_norm
        box = [(x0 - crop.x0) / width, (y0 - crop.y0) / height, (x1 - crop.x0) / width, (y1 - crop.y0) / height]
        cut = [min(max(edge, 0.0), 1.0) for edge in box]
        if (cut[2] - cut[0]) * (cut[3] - cut[1]) < _MIN_KEPT_AREA_FRAC * (box[2] - box[0]) * (box[3] - box[1]):
            continue
        if crop.flip:
            cut = [1 - cut[2], cut[1], 1 - cut[0], cut[3]]
        moved.append(Region(region.phrase, (cut[0], cut[1], cut[2], cut[3])))
    return moved


def usable_regions(regions: Sequence[Region]) -> tuple[list[Region], int]:
    """The regions with a phrase and a box of some area inside the image, cut at its edges; and how many are not (in pixels, say)."""
    usable = []
    for region in regions:
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in region.bbox_xyxy_norm)
        if region.phrase.strip() and x1 > x0 and y1 > y0 and max(region.bbox_xyxy_norm) <= MAX_EDGE:
            usable.append(Region(region.phrase.strip(), (x0, y0, x1, y1)))
    return usable, len(regions) - len(usable)
