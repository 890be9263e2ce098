import math

import numpy as np
import pytest
import torch

from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.metrics.contrastive import binary_entropy, mixed_losses, pair_losses


def features(seed, rows=7):
    return torch.nn.functional.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_losses_of_pairs_are_figure_3s_and_their_mean_is_the_training_loss():
    images, texts, scale = features(0), features(1), 9.0
    logits = scale * images.numpy().astype(np.float64) @ texts.numpy().T.astype(np.float64)
    of_rows = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).diagonal()
    of_columns = -np.log(np.exp(logits) / np.exp(logits).sum(0, keepdims=True)).diagonal()
    losses = pair_losses(images, texts, scale)
    assert losses.numpy() == pytest.approx((of_rows + of_columns) / 2)
    assert losses.mean().item() == pytest.approx(float(info_nce(images, texts, torch.tensor(scale))), abs=1e-5)


def test_the_losses_of_mixed_images_are_cross_entropies_with_their_shares():
    images, texts, scale = features(2), features(3), 9.0
    own, partner = torch.tensor([3, 0, 1, 2, 4, 6, 5]), torch.tensor([0, 1, 2, 3, 5, 4, 6])
    lam = torch.linspace(0.1, 0.9, 7)
    targets = np.zeros((7, 7))
    targets[np.arange(7), own] += lam.numpy()
    targets[np.arange(7), partner] += 1 - lam.numpy()
    logits = scale * images.numpy().astype(np.float64) @ texts.numpy().T.astype(np.float64)
    expected = -(targets * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1)
    losses = mixed_losses(images, texts, scale, own, partner, lam)
    assert losses.numpy() == pytest.approx(expected, rel=1e-6)
    assert (losses >= binary_entropy(lam)).all()


def test_the_entropy_is_that_of_a_coin():
    assert binary_entropy(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, math.log(2), 0])
