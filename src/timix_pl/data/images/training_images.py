"""Training images: opened, cropped at random, and changed in colour."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from timix_pl.core.sample import Sample
from timix_pl.data.images.augment import Crop, crop_fills, crop_image, random_colors, random_crop
from timix_pl.data.images.decode import EncodedImage
from timix_pl.data.shards.reader import BadSampleError


class Augmentation(NamedTuple):
    """Random changes of a training image: crop, flip and colours.

    Attributes:
        scale, ratio: see :func:`timix_pl.data.images.augment.random_crop`.
        flip: flip half of the images left to right.
        color_jitter, color_jitter_prob, gray_prob: see :func:`timix_pl.data.images.augment.random_colors`.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (0.75, 1.3333)
    flip: bool = False
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    color_jitter_prob: float = 0.8
    gray_prob: float = 0.0


class TrainingImages:
    """Turns a sample's image into a row of a batch. The row depends only on the sample, the seed and the ``ids`` that name its draws.

    Args:
        size_px: height and width of the row.
        patch_grid: rows and columns of patches. An image that is smaller than a patch is refused.
        max_image_px: larger images are refused before they are decoded.
    """

    def __init__(self, size_px: tuple[int, int], patch_grid: tuple[int, int], augmentation: Augmentation, *, seed: int, max_image_px: int):
        self._size, self._augmentation, self._seed, self._max_image_px = size_px, augmentation, seed, max_image_px
        self._patch_px = max(size_px[0] // patch_grid[0], size_px[1] // patch_grid[1])

    def open(self, sample: Sample) -> EncodedImage:
        """The image. A JPEG is not decoded yet.

        Raises:
            BadSampleError: it cannot be used.
        """
        image = EncodedImage(sample.image, sample.image_ext, max_image_px=self._max_image_px)
        if min(image.height, image.width) < self._patch_px:
            raise BadSampleError(f"the image of {image.width} x {image.height} pixels is smaller than a patch of {self._patch_px} pixels")
        return image

    def random_crop(self, image: EncodedImage, *ids: int | str) -> Crop:
        """A crop drawn for ``ids``."""
        scale, ratio, flip = self._augmentation[:3]
        return random_crop(image.width / image.height, scale, ratio, flip, self._seed, *ids)

    def cropped(self, image: EncodedImage, crop: Crop, *ids: int | str) -> NDArray[np.uint8]:
        """The crop (H W 3) with colours drawn for ``ids``."""
        pixels = image.decode(partial(crop_fills, crop, self._size))
        return random_colors(crop_image(pixels, crop, self._size), *self._augmentation[3:], self._seed, *ids)


def stack(images: Sequence[NDArray[np.uint8]]) -> UInt8[Tensor, "B 3 H W"]:
    """One tensor. A worker of a loader makes it in shared memory, so that it is sent without a copy."""
    return default_collate([torch.from_numpy(image).permute(2, 0, 1) for image in images])
