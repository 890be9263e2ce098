"""The batch of a fine-tuning step, made from only the step's number: images, and questions or captions that point at them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.randomness import seed_of
from timix_pl.core.sample import Sample
from timix_pl.core.types import TaskBatch
from timix_pl.data.images.training_images import Augmentation, TrainingImages, stack
from timix_pl.data.sets.training_set import SampleStream


class TaskItems(Protocol):
    """What a task learns from a sample. It is used in loader processes."""

    def of(self, sample: Sample) -> Sequence[Any]:
        """All items of a sample, always in the same order.

        Raises:
            BadSampleError: it has none.
        """

    def collate(self, items: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Tensors with one row per item, and the number of items in each term of the loss. Terms without items are named too."""


class TaskSet(Dataset[tuple[TaskBatch, None]]):
    """Item ``step`` is this rank's share of the step's global batch, and None in place of a region batch.

    Args:
        samples: the stream of images.
        task_items: what the task learns from an image.
        items_per_image: the most items of an image in one step. Each epoch uses the next ones.
        image_size_px: height and width.
        patch_grid: rows and columns of patches.
        global_batch_size: images per step over all ranks.
        rank, world_size: which share of the batch is this rank's.
    """

    def __init__(
        self,
        samples: SampleStream,
        task_items: TaskItems,
        *,
        items_per_image: int,
        image_size_px: tuple[int, int],
        patch_grid: tuple[int, int],
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation = Augmentation(),  # noqa: B008
        max_image_px: int = 100_000_000,
    ):
        self.samples, self.task_items, self.items_per_image = samples, task_items, items_per_image
        self._images = TrainingImages(image_size_px, patch_grid, augmentation, seed=seed, max_image_px=max_image_px)
        self._global_batch_size, self._batch_size = global_batch_size, global_batch_size // world_size
        self._seed, self._first = seed, rank * (global_batch_size // world_size)

    def __getitem__(self, step: int) -> tuple[TaskBatch, None]:
        problems: list[dict[str, Any]] = []
        rows = self.samples.load(step * self._global_batch_size + self._first, self._batch_size, self._use, problems)
        images, items_of_image, keys, shards = zip(*rows, strict=True)
        counts = [len(items) for items in items_of_image]
        tensors, num_items = self.task_items.collate([item for items in items_of_image for item in items])
        image_index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        return TaskBatch(stack(images), image_index, counts, tensors, num_items, list(keys), self._first, problems, shards), None

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
