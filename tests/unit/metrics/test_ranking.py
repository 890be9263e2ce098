"""Ranks against a plain loop over a full score matrix. Features are small integers, so that dot products are exact and ties are many."""

import numpy as np
import pytest
import torch

from timix_pl.metrics.ranking import positive_ranks, top_k_share


def ranks_by_hand(scores, query_labels, candidate_labels):
    ranks = []
    for row, label in zip(scores, query_labels, strict=True):
        positives = [s for s, other in zip(row, candidate_labels, strict=True) if other == label]
        negatives = [s for s, other in zip(row, candidate_labels, strict=True) if other != label]
        ranks.append(1 + (sum(s >= max(positives) for s in negatives) if positives else len(negatives)))
    return ranks


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_with_ties_and_several_positives(seed):
    draw = np.random.default_rng(seed)
    queries, candidates = draw.integers(-2, 3, (13, 3)), draw.integers(-2, 3, (29, 3))
    query_labels, candidate_labels = draw.permutation(13), draw.integers(0, 13, 29)
    expected = ranks_by_hand(queries @ candidates.T, query_labels, candidate_labels)

    for max_scores in (1, 29, 100, 2**24):
        ranks = positive_ranks(
            torch.tensor(queries).float(),
            torch.tensor(candidates).float(),
            torch.tensor(query_labels),
            torch.tensor(candidate_labels),
            max_scores=max_scores,
        )
        assert ranks.tolist() == expected


def test_a_model_that_tells_nothing_apart_finds_nothing():
    same = torch.ones(6, 4)
    assert positive_ranks(same, same, torch.arange(6), torch.arange(6)).tolist() == [6] * 6


def test_a_model_of_nan_finds_nothing():
    nan = torch.full((6, 4), torch.nan)
    assert positive_ranks(nan, nan, torch.arange(6), torch.arange(6)).tolist() == [6] * 6


def test_a_query_without_a_positive_ranks_behind_all():
    features = torch.eye(4)
    assert positive_ranks(features[:1], features, torch.tensor([9]), torch.arange(4)).tolist() == [5]


def test_never_holds_more_scores_than_allowed(monkeypatch):
    seen = []
    whole_product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.append((scores := whole_product(a, b)).numel()) or scores)
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    positive_ranks(features, features, torch.arange(50), torch.arange(50), max_scores=200)
    assert sum(seen) == 2500 and max(seen) <= 200


def test_top_k_share():
    assert top_k_share(torch.tensor([1, 5, 6, 2]), 5) == 0.75
