import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from timix_pl.metrics.knn import knn_votes


def case(seed, num_train=120, num=31):
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(num_train + num, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:num_train], draw.integers(0, 6, num_train), rows[num_train:]


@pytest.mark.parametrize("seed", range(3))
def test_votes_are_those_of_scikit_learn(seed):
    train, labels, test = case(seed)
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(train, labels)
    for max_scores in (1, 500, 2**24):
        votes = knn_votes(*map(torch.tensor, (test, train, labels)), 6, max_scores=max_scores).numpy()
        np.testing.assert_allclose(votes / votes.sum(axis=1, keepdims=True), reference.predict_proba(test))


def test_all_vote_where_there_are_fewer_than_k():
    train, labels, test = case(0, num_train=3)
    votes = knn_votes(*map(torch.tensor, (test, train, labels)), 6, temperature=1.0)
    expected = [
        [sum(np.exp(row @ other) for other, label in zip(train, labels, strict=True) if label == c) for c in range(6)] for row in test
    ]
    np.testing.assert_allclose(votes, expected)
