"""Work shared between ranks, such that the results are the same at any number of ranks."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.distributed import gather_objects, rank, world_size
from timix_pl.core.errors import TimixError
from timix_pl.metrics.ranking import positive_ranks

Result = TypeVar("Result")

QUERIES_PER_TASK = 1024


def over_ranks(num_tasks: int, work: Callable[[range], list[Result]]) -> list[Result]:
    """Cut ``range(num_tasks)`` into one contiguous share per rank, do this rank's, and return the results of all in order, on every rank.

    A task should be a whole batch: then every forward pass sees the same rows at any number of ranks, and results agree to the last bit.

    Raises:
        TimixError: ``work`` raised it on some rank. It is raised on all, so that no rank waits for one that has left.
    """
    share = range(num_tasks * rank() // world_size(), num_tasks * (rank() + 1) // world_size())
    outcome: list[Result] | TimixError
    try:
        outcome = work(share)
    except TimixError as error:
        outcome = error.with_traceback(None)  # its frames would keep loader processes alive
    results: list[Result] = []
    for rank_outcome in gather_objects(outcome):
        if isinstance(rank_outcome, TimixError):
            raise rank_outcome
        results += rank_outcome
    return results


def shared_positive_ranks(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    device: torch.device,
) -> Int[Tensor, " Q"]:
    """``metrics.ranking.positive_ranks``, computed on ``device`` by all ranks together; returned on the CPU."""
    candidate_features, candidate_labels = candidate_features.to(device), candidate_labels.to(device)
    tasks = list(zip(query_features.split(QUERIES_PER_TASK), query_labels.split(QUERIES_PER_TASK), strict=True))

    def rank_candidates(share: range) -> list[Tensor]:
        return [
            positive_ranks(queries.to(device), candidate_features, labels.to(device), candidate_labels).cpu()
            for queries, labels in tasks[share.start : share.stop]
        ]

    return torch.cat(over_ranks(len(tasks), rank_candidates))
