"""The PTA loss: binary cross-entropy over patches and phrases."""

import numpy as np
import pytest
import torch

from timix_pl.losses.patch_text import patch_text


def test_is_the_sum_of_binary_cross_entropies():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (5, 12)), rng.integers(0, 2, (5, 12)).astype(float)
    probabilities = 1 / (1 + np.exp(-logits))
    expected = -np.sum(np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities)))
    loss = patch_text(torch.from_numpy(logits).float(), torch.from_numpy(labels).float())
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_without_phrases_it_is_zero():
    assert float(patch_text(torch.zeros(0, 6), torch.zeros(0, 6))) == 0.0
