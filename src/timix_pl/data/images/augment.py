"""Random crops, flips and colour changes. Boxes move with the image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from timix_pl.core.randomness import permutation, uniform
from timix_pl.core.sample import MAX_EDGE, Region

cv2.setNumThreads(0)

_MIN_KEPT_AREA_FRAC = 0.5


class Crop(NamedTuple):
    """A rectangle, as shares of the image's width and height, and whether it is flipped left to right afterwards."""

    x0: float
    y0: float
    x1: float
    y1: float
    flip: bool = False


def random_crop(aspect: float, scale: Sequence[float], ratio: Sequence[float], flip: bool, *ids: int | str) -> Crop:
    """A random resized crop, drawn as torchvision's RandomResizedCrop does: ten tries, then a centre crop.

    Args:
        aspect: width of the image over its height.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest aspect ratio of the crop.
        ids: name the draw; the same ids give the same crop.
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


def crop_pixels(crop: Crop, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of the crop in an image of this height and width, at least one of each."""
    y0, x0 = min(round(crop.y0 * height), height - 1), min(round(crop.x0 * width), width - 1)
    return slice(y0, max(round(crop.y1 * height), y0 + 1)), slice(x0, max(round(crop.x1 * width), x0 + 1))


def crop_fills(crop: Crop, size_px: tuple[int, int], height: int, width: int) -> bool:
    """Whether the crop of an image of this height and width has at least ``size_px`` (height, width) pixels, so that it is not enlarged."""
    rows, columns = crop_pixels(crop, height, width)
    return rows.stop - rows.start >= size_px[0] and columns.stop - columns.start >= size_px[1]


def crop_image(image: NDArray[np.uint8], crop: Crop, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop (H W 3), resized to ``size_px`` (height, width) as PIL does it: bicubic, antialiased where it shrinks."""
    part = np.ascontiguousarray(image[crop_pixels(crop, *image.shape[:2])])
    planes = torch.from_numpy(part).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size_px, mode="bicubic", antialias=True)[0]
    return (resized.flip(-1) if crop.flip else resized).permute(1, 2, 0).numpy()


def random_colors(
    image: NDArray[np.uint8], color_jitter: Sequence[float], color_jitter_prob: float, gray_prob: float, *ids: int | str
) -> NDArray[np.uint8]:
    """The image (H W 3) with its colours changed at random, as torchvision's ColorJitter and then RandomGrayscale do.

    Args:
        color_jitter: strengths of the changes of brightness, contrast, saturation and hue, which come in random order. The first three are
            multiplied by 1 - strength to 1 + strength (never below 0). The hue is turned by up to strength of the circle, either way.
        color_jitter_prob: share of the images that are changed so.
        gray_prob: share of the images that become grey.
        ids: name the draws; the same ids give the same changes.
    """
    jitters = any(color_jitter) and color_jitter_prob > 0
    if not jitters and gray_prob == 0:
        return image
    draws = uniform(6, "colors", *ids)
    if jitters and draws[0] < color_jitter_prob:
        for number in permutation(4, "colors", "order", *ids):
            change = (2 * draws[1 + number] - 1) * color_jitter[number]
            if color_jitter[number]:
                image = _COLOR_CHANGES[number](image, change if number == _HUE else max(0.0, 1 + change))
    return _gray(image) if draws[5] < gray_prob else image


def _brightness(image: NDArray, factor: float) -> NDArray:
    return cv2.convertScaleAbs(image, alpha=factor)


def _contrast(image: NDArray, factor: float) -> NDArray:
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)


def _saturation(image: NDArray, factor: float) -> NDArray:
    return cv2.addWeighted(image, factor, _gray(image), 1 - factor, 0)


def _hue(image: NDArray, turn: float) -> NDArray:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _gray(image: NDArray) -> NDArray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


_COLOR_CHANGES = (_brightness, _contrast, _saturation, _hue)
_HUE = 3


def crop_regions(regions: Sequence[Region], crop: Crop) -> list[Region]:
    """The regions as seen in the crop. A region that keeps less than half of its area is dropped."""
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
    """The regions that training can use, with boxes cut at the image's edges, and the number of the others.

    A region needs a phrase, and a box that has some area inside the image and is not written in pixels.
    """
    usable = []
    for region in regions:
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in region.bbox_xyxy_norm)
        if region.phrase.strip() and x1 > x0 and y1 > y0 and max(region.bbox_xyxy_norm) <= MAX_EDGE:
            usable.append(Region(region.phrase.strip(), (x0, y0, x1, y1)))
    return usable, len(regions) - len(usable)
