"""The sigmoid loss against open_clip's, and the soft one against an expectation over drawn labels."""

import itertools

import numpy as np
import pytest
import torch
from open_clip.loss import SigLipLoss

from tests.unit.losses.features import dense_w, random_features, random_pairs, value_and_gradients
from timix_pl.losses.contrastive.siglip import siglip
from timix_pl.losses.pairs import Pairs

SCALE, BIAS = torch.tensor([9.0], dtype=torch.float64), torch.tensor([-6.0], dtype=torch.float64)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
@pytest.mark.parametrize("tile_rows", [4, None])
def test_equals_open_clip_in_value_and_gradient(num_rows, tile_rows):
    leaves = random_features(num_rows, 6, 1), random_features(num_rows, 6, 2), SCALE, BIAS
    ours = value_and_gradients(lambda *tensors: siglip(*tensors, tile_rows=tile_rows), *leaves)
    for mine, reference in zip(ours, value_and_gradients(SigLipLoss(), *leaves), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


def test_shares_of_a_batch_average_to_the_whole():
    images, captions = random_features(12, 6, seed=1), random_features(12, 6, seed=2)
    shares = [siglip(images[first : first + 3], captions, SCALE, BIAS, first=first) for first in range(0, 12, 3)]
    torch.testing.assert_close(torch.stack(shares).mean(), siglip(images, captions, SCALE, BIAS))


@pytest.mark.parametrize("self_targets", [False, True])
def test_soft_loss_is_the_expected_hard_loss_over_drawn_labels(self_targets):
    """All 2^6 outcomes of the labels of 2 images and 3 captions, each with its probability."""
    pairs, images, captions, clean = (
        random_pairs(3, 2, seed=0),
        *(random_features(rows, 4, seed) for rows, seed in ((2, 1), (3, 2), (3, 3))),
    )
    logits, clean_logits = ((9 * x @ captions.T - 1).numpy() for x in (images, clean))
    w = dense_w(pairs, 3) @ (1 / (1 + np.exp(-clean_logits)) if self_targets else np.eye(3))
    expected = 0.0
    for outcome in itertools.product((-1, 1), repeat=6):
        z = np.reshape(outcome, (2, 3))
        expected += np.where(z == 1, w, 1 - w).prod() * np.log1p(np.exp(-z * logits)).sum() / 2
    loss = siglip(images, captions, SCALE, torch.tensor(-1.0), pairs, clean=clean if self_targets else None, tile_rows=2)
    assert float(loss) == pytest.approx(expected, rel=1e-10)


def test_soft_loss_is_least_where_the_model_says_the_label():
    """Self targets of images that are their own wholly: no gradient where the mixed pass says what the clean one does."""
    images, captions = random_features(5, 6, seed=1), random_features(5, 6, seed=2)
    results = value_and_gradients(lambda *x: siglip(*x, Pairs.clean(images), clean=images), images, captions, SCALE, BIAS)
    for gradient in results[1:]:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
