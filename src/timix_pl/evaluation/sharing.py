"""Work shared between ranks, such that the results are the same at any number of ranks."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.distributed import gather_objects, rank, world_size
from timix_pl.core.errors import TimixError
from timix_pl.metrics.ranking import Ranking, positive_ranks, rank_positives
from timix_pl.metrics.zero_shot import predicted_classes

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


def over_queries(num_queries: int, work: Callable[[slice], Result]) -> list[Result]:
    """What ``work`` makes of every 1,024 queries, in order, on every rank; the ranks share the work."""
    starts = range(0, num_queries, QUERIES_PER_TASK)
    return over_ranks(
        len(starts), lambda share: [work(slice(start, start + QUERIES_PER_TASK)) for start in starts[share.start : share.stop]]
    )


def shared_positive_ranks(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    device: torch.device,
) -> Int[Tensor, " Q"]:
    """``metrics.ranking.positive_ranks``, computed on ``device`` by all ranks together; returned on the CPU."""
    candidates = candidate_features.to(device), candidate_labels.to(device)

    def work(queries: slice) -> Tensor:
        features, labels = query_features[queries].to(device), query_labels[queries].to(device)
        return positive_ranks(features, candidates[0], labels, candidates[1]).cpu()

    return torch.cat(over_queries(len(query_features), work))


def shared_ranking(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    k: int,
    device: torch.device,
) -> Ranking:
    """``metrics.ranking.rank_positives``, likewise."""
    candidates = candidate_features.to(device), candidate_labels.to(device)

    def work(queries: slice) -> list[Tensor]:
        features, labels = query_features[queries].to(device), query_labels[queries].to(device)
        return [part.cpu() for part in rank_positives(features, candidates[0], labels, candidates[1], k)]

    return Ranking(*(torch.cat(parts) for parts in zip(*over_queries(len(query_features), work), strict=True)))


def shared_predicted_classes(
    image_features: Float[Tensor, "N D"], class_features: Float[Tensor, "C D"], labels: Int[Tensor, " N"], device: torch.device
) -> Int[Tensor, " N"]:
    """``metrics.zero_shot.predicted_classes``, likewise."""
    classes = class_features.to(device)

    def work(images: slice) -> Tensor:
        return predicted_classes(image_features[images].to(device), classes, labels[images].to(device)).cpu()

    return torch.cat(over_queries(len(image_features), work))
