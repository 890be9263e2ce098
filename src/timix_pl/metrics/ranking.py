"""Ranks of right answers among scored candidates, without ever holding all scores at once."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def positive_ranks(
    query_features: Float[Tensor, "Q D"],
    candidate_features: Float[Tensor, "C D"],
    query_labels: Int[Tensor, " Q"],
    candidate_labels: Int[Tensor, " C"],
    max_scores: int = 2**24,
) -> Int[Tensor, " Q"]:
    """For each query the rank, from 1, of its best positive: of the candidates with its label the one with the highest dot product.

    Ties are broken against the model: a negative that scores the same as the best positive ranks before it, and so does one whose score is
    NaN. A query without a positive gets rank C + 1.

    Args:
        max_scores: scores are computed in chunks of whole rows of at most this many (64 MiB in fp32; a few such arrays exist at a time),
            and of one row at least.
    """
    rows_per_chunk = max(1, max_scores // max(1, len(candidate_features)))
    ranks = [
        1 + count_before_best_positive(queries @ candidate_features.T, labels[:, None] == candidate_labels)
        for queries, labels in zip(query_features.split(rows_per_chunk), query_labels.split(rows_per_chunk), strict=True)
    ]
    return torch.cat(ranks)


def count_before_best_positive(scores: Float[Tensor, "Q C"], is_positive: Bool[Tensor, "Q C"]) -> Int[Tensor, " Q"]:
    """The number of negatives in each row that do not score less than the row's best positive."""
    best_positive = scores.masked_fill(~is_positive, -torch.inf).amax(dim=1, keepdim=True)
    return (~(scores < best_positive) & ~is_positive).sum(dim=1)


def top_k_share(ranks: Int[Tensor, " Q"], k: int) -> float:
    """The share of queries whose best positive is among the first k candidates."""
    return (ranks <= k).double().mean().item()


def roc_auc(positive_scores: Float[Tensor, " n"], negative_scores: Float[Tensor, " m"]) -> float:
    """Area under the ROC curve: the share of pairs of a positive and a negative of which the positive scores higher; ties count half.

    A positive whose score is NaN is below all, a negative above all.

    Source: the Mann-Whitney statistic (Hanley and McNeil 1982), which scikit-learn's ``roc_auc_score`` equals.
    """
    positives = positive_scores.double().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    negatives = negative_scores.double().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).sort().values
    num_below = torch.searchsorted(negatives, positives) + torch.searchsorted(negatives, positives, right=True)
    return num_below.double().mean().item() / (2 * len(negatives))
