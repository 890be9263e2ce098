"""Samples for evaluation: each one once, in order, decoded by PIL."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region, Sample
from timix_pl.data.images.augment import Crop, crop_regions, usable_regions
from timix_pl.data.images.decode import open_image
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

_SHARDS_AHEAD = 3


class EvaluationItem(NamedTuple):
    """One sample. Boxes are those of the centre crop."""

    key: str
    image: UInt8[Tensor, "3 H W"]
    captions: tuple[str, ...]
    regions: tuple[Region, ...]
    extra: dict[str, Any]


def centre_crop(image: Image.Image, size_px: tuple[int, int]) -> tuple[UInt8[Tensor, "3 H W"], Crop]:
    """Resize the shorter side of an RGB image with PIL (bicubic) and cut out the centre. Returns it, and where it lies in the image.

    Sizes are rounded as torchvision's ``Resize`` and ``CenterCrop`` do, with which open_clip evaluates.
    """
    height, width = size_px
    if image.width * height > image.height * width:
        size = image.width * height // image.height, height
    else:
        size = width, image.height * width // image.width
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    resized = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height))
    crop = Crop(left / size[0], top / size[1], (left + width) / size[0], (top + height) / size[1])
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous(), crop


class EvaluationSet(Dataset[EvaluationItem]):
    """The samples of shards, as :func:`centre_crop` cuts them.

    Args:
        shards: a folder, a pattern, or a list.
        key: what the user calls them, for messages.
        image_size_px: height and width of the crop.
        max_image_px, max_image_mb: larger images are refused, before they are decoded or read.
        access: how remote shards are read.
    Raises:
        DataError: missing shards, or a sample that cannot be read or decoded. The error names it: evaluation leaves nothing out.
    """

    def __init__(
        self,
        shards: Any,
        image_size_px: tuple[int, int],
        *,
        key: str = "shards",
        max_image_px: int = 100_000_000,
        max_image_mb: float = 100.0,
        access: RemoteAccess = RemoteAccess(),  # noqa: B008
    ):
        self.sources = resolve_shards(shards, key, access)
        self.key = key
        self._reader = ShardReader([source.tars.manifest() for source in self.sources], max_image_mb=max_image_mb)
        self._size, self._max_image_px = image_size_px, max_image_px

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, number: int) -> EvaluationItem:
        self._reader.expect([], lambda: self._reader.shards_from(number, _SHARDS_AHEAD))
        try:
            sample = self._reader[number]
            image = open_image(sample.image, max_image_px=self._max_image_px)
        except BadSampleError as error:
            raise self._unusable(number, error) from error
        pixels, crop = centre_crop(image, self._size)
        regions = tuple(crop_regions(usable_regions(sample.regions)[0], crop))
        return EvaluationItem(sample.key, pixels, sample.captions, regions, sample.extra)

    def has_regions(self) -> bool:
        """Whether one of 64 samples, spread evenly over the set, has a usable region. Rare ones may be missed. No image is read."""
        return any(usable_regions(self._reader.regions(number))[0] for number in self._reader.some())

    def check_captions(self, task: str) -> None:
        """Check before an evaluation that samples have captions. No image is read. Of a large set 64 samples are checked.

        Args:
            task: the evaluation that needs them, for the message.
        Raises:
            DataError: a sample has no caption, or none that can be read.
        """
        for number in self._reader.some():
            shard, key = self._reader.name(number)
            if not self._without_image(number).captions:
                raise DataError(
                    f"{self.key}: {shard}: {key} has no captions, and {task} needs at least one for each image. Write them "
                    f'into the shard ({key}.txt, or "captions" in {key}.json), or leave {task} out of `evaluators`'
                )

    def check_questions(self) -> None:
        """Check before an evaluation that some sample has questions. No image is read.

        Raises:
            DataError: no sample has questions, or a sample cannot be read.
        """
        if not any(self._without_image(number).extra.get("questions") for number in (*self._reader.some(), *range(len(self)))):
            raise DataError(
                f'{self.key}: none of the {len(self)} images has questions, and vqa asks them. Write "questions" into KEY.json, as '
                "docs/your_own_data.md describes, name other shards, or leave vqa out of `evaluators`"
            )

    def _without_image(self, number: int) -> Sample:
        try:
            return self._reader.without_image(number)
        except BadSampleError as error:
            raise self._unusable(number, error) from error

    def _unusable(self, number: int, error: BadSampleError) -> BadSampleError:
        return BadSampleError(f"{': '.join(self._reader.name(number))}: {error}; repair or remove it, evaluation leaves nothing out")
