import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from timix_pl.metrics.linear_probe import fit_linear, search_inverse_penalty


def case(seed, num=300, dim=8, num_classes=5):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, num_classes, num)
    rows = draw.normal(size=(num, dim)) + 1.5 * draw.normal(size=(num_classes, dim))[labels] + 3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0, 1000.0])
def test_probabilities_are_those_of_scikit_learn(inverse_penalty):
    rows, labels = case(0)
    reference = LogisticRegression(C=inverse_penalty, max_iter=5000, tol=1e-8).fit(rows, labels)
    for max_logits, dtype in ((1, np.float64), (400, np.float32), (2**26, np.float32)):
        features = torch.tensor(rows.astype(dtype))
        weight, bias = fit_linear(features, torch.tensor(labels), 5, inverse_penalty, max_logits=max_logits)
        np.testing.assert_allclose((features @ weight.T + bias).softmax(dim=1), reference.predict_proba(rows), atol=1e-3)


def test_training_elsewhere_is_not_touched():
    with torch.no_grad():
        weight, bias = fit_linear(torch.eye(3), torch.arange(3), 3, 1.0)
    assert not weight.requires_grad and not bias.requires_grad
    assert (torch.eye(3) @ weight.T + bias).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("peak", [-6.0, -3.125, 0.0, 1.75, 6.0])
def test_the_search_finds_a_single_peak_in_fifteen_fits(peak):
    tried = []

    def accuracies(values):
        tried.extend(values)
        return [-abs(np.log10(value) - peak) for value in values]

    assert np.log10(search_inverse_penalty(accuracies)) == pytest.approx(peak, abs=1 / 8)
    assert len(tried) == len(set(tried)) == 15


def test_of_equally_good_values_the_strongest_penalty_is_taken():
    assert search_inverse_penalty(lambda values: [0.5] * len(values)) == pytest.approx(10 ** (-6 - 1 - 0.5 - 0.25 - 0.125))
