"""The sigmoid loss against open_clip's, and the soft one against an expectation over drawn labels."""

import itertools

import numpy as np
import pytest
import torch
from open_clip.loss import SigLipLoss

from tests.unit.losses.features import random_features
from timix_pl.losses.siglip import siglip, soft_siglip


@pytest.mark.parametrize("num_rows", [1, 2, 9])
def test_equals_open_clip_in_value_and_gradient(num_rows):
    results = []
    for ours in (True, False):
        image, text = random_features(num_rows, 6, seed=1).requires_grad_(), random_features(num_rows, 6, seed=2).requires_grad_()
        scale, bias = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (9.0, -6.0))
        loss = siglip(scale * image @ text.T + bias) if ours else SigLipLoss()(image, text, scale, bias)
        results.append((loss.detach(), *torch.autograd.grad(loss, (image, text, scale, bias))))
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference.reshape(mine.shape), rtol=1e-10, atol=1e-12)


def test_shares_of_a_batch_average_to_the_whole():
    logits = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = [siglip(logits[first : first + 3], first) for first in range(0, 12, 3)]
    torch.testing.assert_close(torch.stack(shares).mean(), siglip(logits))


def test_soft_loss_with_hard_labels_is_the_hard_loss():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(soft_siglip(logits, torch.eye(5, dtype=torch.float64)), siglip(logits))


def test_soft_loss_is_the_expected_hard_loss_over_drawn_labels():
    """All 2^6 outcomes of the labels of 2 images and 3 captions, each with its probability."""
    rng = np.random.default_rng(0)
    logits, w = rng.normal(0, 3, (2, 3)), rng.uniform(0, 1, (2, 3))
    expected = 0.0
    for outcome in itertools.product((-1, 1), repeat=6):
        z = np.reshape(outcome, (2, 3))
        probability = np.where(z == 1, w, 1 - w).prod()
        hard_loss = np.log1p(np.exp(-z * logits)).sum() / 2
        expected += probability * hard_loss
    assert float(soft_siglip(torch.from_numpy(logits), torch.from_numpy(w))) == pytest.approx(expected, rel=1e-12)


def test_soft_loss_is_least_where_the_model_says_the_label():
    w = torch.tensor([[0.7, 0.3, 0.01]], dtype=torch.float64)
    logits = w.logit().requires_grad_()
    (gradient,) = torch.autograd.grad(soft_siglip(logits, w), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    assert all(soft_siglip(logits + delta, w) > soft_siglip(logits, w) for delta in (-0.1, 0.1))
