"""Ranks of positives among scored candidates, without storing all scores at once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

TIE = 1e-6
"""Cosines that differ by at most this are ties. Those of equal rows may differ by about 1e-8, depending on their place in the matrix."""


def positive_ranks(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    max_scores: int = 2**24,
) -> Int[Tensor, " Q"]:
    """The rank, from 1, of each query's best positive: the candidate with the query's label and the highest dot product.

    Ties are broken against the model: a negative whose score equals that of the best positive, up to ``TIE``, or is NaN ranks before it. A
    query without a positive gets rank C + 1.

    Args:
        query_features, candidate_features: L2-normalised.
        max_scores: largest number of scores computed at once, to limit memory (by default 64 MiB in fp32, for each of a few arrays). At
            least one query is computed at once.
    """
    chunks = _scores_in_chunks(query_features, candidate_features, query_labels, candidate_labels, max_scores)
    return torch.cat([1 + count_before_best_positive(scores, is_positive, TIE) for scores, is_positive in chunks])


class Ranking(NamedTuple):
    """For each query, the rank of its best positive, from 1, and the average precision of its first k candidates."""

    best_rank: Int[Tensor, " Q"]
    average_precision: Float[Tensor, " Q"]


def rank_positives(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    k: int,
    max_scores: int = 2**24,
) -> Ranking:
    """``positive_ranks`` and ``average_precision_at_k`` from the same scores; arguments and ties as there."""
    chunks = _scores_in_chunks(query_features, candidate_features, query_labels, candidate_labels, max_scores)
    rankings = [
        Ranking(1 + count_before_best_positive(scores, is_positive, TIE), average_precision_at_k(scores, is_positive, k, TIE))
        for scores, is_positive in chunks
    ]
    return Ranking(*(torch.cat(parts) for parts in zip(*rankings, strict=True)))


def _scores_in_chunks(
    query_features: Tensor, candidate_features: Tensor, query_labels: Tensor, candidate_labels: Tensor, max_scores: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each chunk of the queries: the scores, and which of them belong to positives."""
    rows_per_chunk = max(1, max_scores // max(1, len(candidate_features)))
    for queries, labels in zip(query_features.split(rows_per_chunk), query_labels.split(rows_per_chunk), strict=True):
        yield queries @ candidate_features.T, labels[:, None] == candidate_labels


def count_before_best_positive(scores: Float[Tensor, "Q C"], is_positive: Bool[Tensor, "Q C"], tie: float = 0.0) -> Int[Tensor, " Q"]:
    """The number of negatives in each row that do not score less, by more than ``tie``, than the row's best positive."""
    best_positive = scores.masked_fill(~is_positive, -torch.inf).amax(dim=1, keepdim=True)
    return (~(scores < best_positive - tie) & ~is_positive).sum(dim=1)


def class_ranks(scores: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The rank of each row's true class among all classes, from 1; ties are broken against the model."""
    return 1 + count_before_best_positive(scores, F.one_hot(labels, scores.shape[1]).bool())


def average_precision_at_k(scores: Float[Tensor, "Q C"], is_positive: Bool[Tensor, "Q C"], k: int, tie: float = 0.0) -> Float[Tensor, " Q"]:
    """The average precision of the first k candidates of each row, in fp64.

    AP@k = 1 / min(c, k) * sum over i = 1..k of [candidate i is positive] * (positives among the first i) / i, with c positives. An order
    with all positives first gets 1. With one positive, AP@k is the reciprocal rank (0 after rank k); with k = c it is the AP of mAP@R. A
    row without a positive gets 0. Scores that differ by at most ``tie`` are ties and are broken against the model, as in
    ``positive_ranks``; a positive whose score is NaN counts as 0.

    Source: Manning, Raghavan and Schütze 2008, "Introduction to information retrieval", section 8.4; truncated at k like mAP@R at R
        (Musgrave et al. 2020; for captions Chun et al. 2022, "ECCV Caption").
    """
    num_positives = is_positive.sum(dim=1)
    num_kept = min(k, scores.shape[1])
    positives = scores.masked_fill(~is_positive | scores.isnan(), -torch.inf).topk(num_kept, dim=1).values
    negatives = scores.masked_fill(is_positive, -torch.inf).topk(num_kept, dim=1).values  # NaN is the largest
    number = torch.arange(1, num_kept + 1, device=scores.device)
    place = number + (~(negatives[:, None, :] < positives[:, :, None] - tie)).sum(dim=2)  # exact up to k
    counts = (place <= k) & (positives > -torch.inf)
    precision = torch.where(counts, number.double() / place, 0.0)
    return precision.sum(dim=1) / num_positives.clamp(1, k)


def top_k_share(ranks: Int[Tensor, " Q"], k: int) -> float:
    """The share of queries whose best positive is among the first k candidates."""
    return (ranks <= k).double().mean().item()


def roc_auc(positive_scores: Float[Tensor, " n"], negative_scores: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive scores higher; ties count half.

    NaN counts as wrong: a positive with it is below all negatives, a negative above all positives.

    Source: the Mann-Whitney statistic (Hanley and McNeil 1982); equal to scikit-learn's ``roc_auc_score``.
    """
    positives = positive_scores.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    negatives = negative_scores.double().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).sort().values
    num_below = torch.searchsorted(negatives, positives) + torch.searchsorted(negatives, positives, right=True)
    return num_below.double().mean().item() / (2 * len(negatives))
