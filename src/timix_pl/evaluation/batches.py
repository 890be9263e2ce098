"""A data set in batches, shared between ranks and read by loader processes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.loader import Loader
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.sharing import over_ranks

Result = TypeVar("Result")


class EvaluationBatch(NamedTuple):
    """B samples in the order of their data set; ``extra`` holds each one's other JSON fields."""

    images: UInt8[Tensor, "B 3 H W"]
    keys: list[str]
    captions: list[tuple[str, ...]]
    regions: list[tuple[Region, ...]]
    extra: list[dict]


def map_batches(
    dataset: Dataset[EvaluationItem], work: Callable[[EvaluationBatch], Result], *, batch_size: int, num_workers: int
) -> list[Result]:
    """What ``work`` makes of every batch of the data set, in order, on every rank; each batch is read and worked on by one rank.

    Args:
        work: its results are picklable, with tensors on the CPU.
        num_workers: loader processes per rank; 0 reads in this process.
    Raises:
        DataError: the data set is empty.
        TimixError: reading or ``work`` raised it, on any rank.
    """
    batches = _Batches(dataset, batch_size)
    if len(batches) == 0:
        raise DataError("The evaluation set holds no samples. Point its shards at a folder that has some, or leave the evaluation out.")

    def work_on(share: range) -> list[Result]:
        own_generator = torch.Generator()  # a loader draws a seed when it starts: not from the generator that training uses
        return [work(batch) for batch in Loader(batches, sampler=share, num_workers=num_workers, generator=own_generator)]

    return over_ranks(len(batches), work_on)


def require_captions(batch: EvaluationBatch, task: str) -> None:
    """Refuse a batch with a sample that has no captions.

    Args:
        task: the evaluation that needs them, for the message.
    Raises:
        DataError: there is one.
    """
    for key, captions in zip(batch.keys, batch.captions, strict=True):
        if not captions:
            raise DataError(
                f"Sample '{key}' has no captions, and {task} needs at least one for every image. Write them into its shard "
                f'({key}.txt, or "captions" in {key}.json), or leave {task} out of `evaluators`.'
            )


class _Batches(Dataset[EvaluationBatch]):
    """Item b is the data set's b-th batch."""

    def __init__(self, dataset: Dataset[EvaluationItem], batch_size: int):
        self.dataset = dataset
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> EvaluationBatch:
        start = index * self.batch_size
        stop = min(start + self.batch_size, len(self.dataset))  # type: ignore[arg-type]
        return _collate([self.dataset[i] for i in range(start, stop)])


def _collate(items: Sequence[EvaluationItem]) -> EvaluationBatch:
    return EvaluationBatch(
        images=torch.stack([item.image for item in items]),
        keys=[item.key for item in items],
        captions=[item.captions for item in items],
        regions=[item.regions for item in items],
        extra=[item.extra for item in items],
    )
