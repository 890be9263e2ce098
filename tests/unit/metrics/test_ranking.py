"""Ranks against a plain loop over a full score matrix. Features are small integers, so that dot products are exact and ties are many."""

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score

from timix_pl.metrics.ranking import average_precision_at_k, class_ranks, positive_ranks, rank_positives, top_k_share


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


def average_precision_by_hand(scores, is_positive, k):
    """From the worst order that the scores allow: of equal ones negatives come first."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], is_positive[i]))
    found, total = 0, 0.0
    for place, candidate in enumerate(order[:k], start=1):
        found += is_positive[candidate]
        total += is_positive[candidate] * found / place
    return total / min(max(sum(is_positive), 1), k)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 10, 50])
def test_average_precision_equals_a_sorted_list_with_ties_and_several_positives(seed, k):
    draw = np.random.default_rng(seed)
    queries, candidates = draw.integers(-2, 3, (13, 3)), draw.integers(-2, 3, (29, 3))
    query_labels, candidate_labels = draw.permutation(13), draw.integers(0, 12, 29)
    scores, is_positive = queries @ candidates.T, query_labels[:, None] == candidate_labels
    expected = [average_precision_by_hand(row, positive, k) for row, positive in zip(scores, is_positive, strict=True)]
    case = [torch.tensor(x) for x in (queries.astype(np.float32), candidates.astype(np.float32), query_labels, candidate_labels)]
    for max_scores in (1, 100, 2**24):
        ranking = rank_positives(*case, k, max_scores=max_scores)
        assert ranking.average_precision.tolist() == pytest.approx(expected)
        assert ranking.best_rank.tolist() == positive_ranks(*case).tolist()


def test_average_precision_of_whole_lists_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    scores, is_positive = draw.normal(size=(40, 25)), draw.random((40, 25)) < 0.2
    is_positive[:, 0] = True
    ours = average_precision_at_k(torch.tensor(scores), torch.tensor(is_positive), 25)
    assert ours.mean().item() == pytest.approx(label_ranking_average_precision_score(is_positive, scores))


def test_nan_scores_count_as_misses_in_the_average_precision():
    nan = torch.nan
    scores, is_positive = torch.tensor([[nan, 3.0, 1.0], [2.0, nan, 1.0]]), torch.tensor([[True, True, False], [True, False, False]])
    assert average_precision_at_k(scores, is_positive, 10).tolist() == [1 / 2, 1 / 2]


def test_class_ranks_count_ties_against_the_model():
    assert class_ranks(torch.tensor([[1.0, 3.0, 3.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([1, 0, 2])).tolist() == [2, 1, 3]


def test_a_model_that_tells_nothing_apart_finds_nothing():
    same = torch.ones(6, 4)
    assert positive_ranks(same, same, torch.arange(6), torch.arange(6)).tolist() == [6] * 6


@pytest.mark.parametrize("num_queries", [1, 11])
@pytest.mark.parametrize("num_candidates", [5, 9, 11, 1003])
def test_the_same_features_tie_wherever_they_stand_in_the_matrix(num_queries, num_candidates):
    """Products of the same rows differ in their last bits at a matrix's edge."""
    draw = torch.Generator().manual_seed(0)
    queries, same = (torch.nn.functional.normalize(torch.randn(rows, 512, generator=draw), dim=1) for rows in (num_queries, 1))
    case = queries, same.expand(num_candidates, 512).contiguous(), torch.arange(num_queries) % num_candidates, torch.arange(num_candidates)
    ranking = rank_positives(*case, 10)
    assert ranking.best_rank.tolist() == positive_ranks(*case).tolist() == [num_candidates] * num_queries
    assert ranking.average_precision.tolist() == [1 / num_candidates if num_candidates <= 10 else 0] * num_queries


@pytest.mark.parametrize(("apart", "rank"), [(1e-7, 2), (1e-5, 1)])
def test_only_scores_next_to_each_other_tie(apart, rank):
    case = torch.ones(1, 1), torch.tensor([[0.5], [0.5 - apart]]), torch.tensor([0]), torch.arange(2)
    ranking = rank_positives(*case, 10)
    assert ranking.best_rank.item() == positive_ranks(*case).item() == rank
    assert ranking.average_precision.item() == 1 / rank


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
