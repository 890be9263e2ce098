"""The batch of a fine-tuning step: images, and questions or captions that point at them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timix_pl.core.randomness import seed_of
from timix_pl.core.sample import Sample
from timix_pl.core.types import ItemBatch
from timix_pl.data.images.training_images import stack
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.sets.step_set import StepSet


class TaskItems(Protocol):
    """What a task learns from a sample. It is used in loader processes."""

    def of(self, sample: Sample) -> Sequence[Any]:
        """All items of a sample, always in the same order.

        Raises:
            BadSampleError: it has none.
        """

    def collate(self, items: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors with one row per item, and the number of items in each term of the loss. Terms without items are named too."""


class ItemSet(StepSet):
    """Item ``step`` is this rank's share of the step's global batch of images, with what the task learns from them.

    Args:
        samples: the stream of images.
        task_items: what the task learns from an image.
        items_per_image: the most items of an image in one step. Each epoch uses the next ones.
        options: see :class:`timix_pl.data.sets.step_set.StepSet`.
    """

    def __init__(self, samples: SampleStream, task_items: TaskItems, *, items_per_image: int, **options: Any):
        super().__init__(**options)
        self.samples, self.task_items, self.items_per_image = samples, task_items, items_per_image

    def __getitem__(self, step: int) -> ItemBatch:
        problems: list[dict[str, Any]] = []
        rows = self.samples.load(step * self.global_batch_size + self.first, self.batch_size, self._use, problems)
        images, items_of_image, keys, shards = zip(*rows, strict=True)
        counts = [len(items) for items in items_of_image]
        tensors, items_of_term = self.task_items.collate([item for items in items_of_image for item in items])
        return ItemBatch(
            images=stack(images),
            image_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            items_per_image=counts,
            items=tensors,
            items_of_term=items_of_term,
            keys=list(keys),
            first=self.first,
            problems=problems,
            shards=shards,
        )

    def _use(self, sample: Sample, ids: tuple[int, int]) -> tuple[NDArray[np.uint8], list[Any], str, str]:
        epoch, number = ids
        items = in_turn(self.task_items.of(sample), self.items_per_image, epoch, seed_of("items", self._seed, number))
        image = self._images.open(sample)
        pixels = self._images.cropped(image, self._images.random_crop(image, "pairs", *ids), "pairs", *ids)
        return pixels, items, sample.key, sample.shard


def in_turn(items: Sequence[Any], count: int, epoch: int, offset: int) -> list[Any]:
    """``count`` of the items, or all if there are not more. Each epoch takes the next ones; the first follows the last."""
    if len(items) <= count:
        return list(items)
    start = (epoch * count + offset) % len(items)
    return [items[(start + number) % len(items)] for number in range(count)]
