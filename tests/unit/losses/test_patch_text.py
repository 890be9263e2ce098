"""The PTA loss: binary cross-entropy, per patch of each phrase, over all ranks' phrases."""

import numpy as np
import pytest
import torch

from timix_pl.losses.patch_text import patch_text


def drawn(num_phrases, num_patches, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (num_phrases, num_patches)), rng.integers(0, 2, (num_phrases, num_patches)).astype(float)


def test_is_the_mean_binary_cross_entropy():
    logits, labels = drawn(5, 12, seed=0)
    probabilities = 1 / (1 + np.exp(-logits))
    expected = -np.mean(np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities)))
    loss = patch_text(torch.from_numpy(logits).float(), torch.from_numpy(labels).float(), torch.tensor(5.0))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_ranks_with_unlike_numbers_of_phrases_average_to_the_whole():
    logits, labels = (torch.from_numpy(x).float() for x in drawn(11, 6, seed=1))
    whole = patch_text(logits, labels, torch.tensor(11.0))
    shares = [patch_text(logits[part], labels[part], torch.tensor(11.0), 3) for part in (slice(0, 2), slice(2, 8), slice(8, 11))]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_a_rank_without_phrases_adds_nothing():
    assert float(patch_text(torch.zeros(0, 6), torch.zeros(0, 6), torch.tensor(4.0), 2)) == 0.0
    assert float(patch_text(torch.zeros(0, 6), torch.zeros(0, 6), torch.tensor(0.0), 2)) == 0.0
