"""Soft targets and the mixed loss against dense matrices in NumPy."""

import numpy as np
import pytest
import torch

from tests.unit.losses.features import dense_w, random_pairs, softmax
from timix_pl.losses.mixed import MixedPairs, caption_targets, image_targets, mixed_info_nce

CASES = pytest.mark.parametrize(("num_captions", "num_mixed"), [(8, 8), (9, 4), (7, 2), (12, 11)])


def clean_logits(num_captions, seed):
    return np.random.default_rng(seed).normal(0, 3, (num_captions, num_captions))


@CASES
def test_one_hot_targets_of_images_are_the_rows_of_w(num_captions, num_mixed):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    targets = image_targets(pairs, num_captions)
    np.testing.assert_allclose(targets.numpy(), dense_w(pairs, num_captions), atol=1e-12)
    np.testing.assert_allclose(targets.sum(1).numpy(), 1, atol=1e-12)


@CASES
def test_one_hot_targets_of_captions_are_the_columns_of_w(num_captions, num_mixed):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    w = dense_w(pairs, num_captions)
    targets, has_mass = caption_targets(pairs, 0, num_captions, num_captions)
    mass = w.sum(0)
    assert has_mass.tolist() == (mass > 0).tolist()
    for caption in range(num_captions):
        expected = w[:, caption] / mass[caption] if mass[caption] > 0 else np.zeros(num_mixed)
        np.testing.assert_allclose(targets[caption].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(targets[has_mass].sum(1).numpy(), 1, atol=1e-12)


@CASES
def test_self_targets_of_images_mix_the_clean_passs_softmaxes(num_captions, num_mixed):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    clean = softmax(clean_logits(num_captions, seed=1), 1)
    targets = image_targets(pairs, num_captions, torch.from_numpy(clean[pairs.own]), torch.from_numpy(clean[pairs.partner]))
    np.testing.assert_allclose(targets.numpy(), dense_w(pairs, num_captions) @ clean, atol=1e-12)  # each one-hot of W became a softmax
    np.testing.assert_allclose(targets.sum(1).numpy(), 1, atol=1e-12)


@CASES
def test_self_targets_of_captions_share_each_images_probability_over_its_mixtures(num_captions, num_mixed):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    w = dense_w(pairs, num_captions)
    clean = softmax(clean_logits(num_captions, seed=2), 1)  # captions by images
    targets, has_mass = caption_targets(pairs, 0, num_captions, num_captions, torch.from_numpy(clean))
    assert has_mass.tolist() == (w.sum(0) > 0).tolist()
    for caption in range(num_captions):
        expected = np.zeros(num_mixed)
        if w[:, caption].sum() > 0:
            for image in range(num_captions):
                if w[:, image].sum() > 0:
                    expected += clean[caption, image] * w[:, image] / w[:, image].sum()
            expected /= expected.sum()
        np.testing.assert_allclose(targets[caption].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(targets[has_mass].sum(1).numpy(), 1, atol=1e-12)


def test_with_certain_clean_predictions_self_is_one_hot():
    pairs, certain = random_pairs(9, 9, seed=0), torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(image_targets(pairs, 9, certain[pairs.own], certain[pairs.partner]), image_targets(pairs, 9))
    for one, two in zip(caption_targets(pairs, 0, 9, 9, certain), caption_targets(pairs, 0, 9, 9), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("clean", [False, True])
def test_a_ranks_caption_targets_are_its_rows_of_the_whole(clean):
    pairs = random_pairs(12, 7, seed=5)
    probabilities = torch.from_numpy(softmax(clean_logits(12, seed=3), 1)) if clean else None
    whole = caption_targets(pairs, 0, 12, 12, probabilities)
    for first in (0, 4, 8):
        part = caption_targets(pairs, first, 4, 12, None if probabilities is None else probabilities[first : first + 4])
        for mine, reference in zip(part, whole, strict=True):
            torch.testing.assert_close(mine, reference[first : first + 4])


def test_an_image_mixed_with_itself_is_simply_itself():
    pairs = MixedPairs(torch.tensor([1]), torch.tensor([1]), torch.tensor([0.3]))
    assert image_targets(pairs, 3).tolist() == [[0.0, 1.0, 0.0]]


def test_lam_zero_and_one_give_whole_captions():
    pairs = MixedPairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1.0, 0.0]))
    assert image_targets(pairs, 4).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    targets, has_mass = caption_targets(pairs, 0, 4, 4)
    assert targets.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]] and has_mass.tolist() == [True, False, True, False]
    clean = torch.full((4, 4), 0.25)
    self_targets, self_mass = caption_targets(pairs, 0, 4, 4, clean)
    assert torch.isfinite(self_targets).all() and self_mass.tolist() == [True, False, True, False]


@CASES
@pytest.mark.parametrize("targets", ["one_hot", "self"])
def test_loss_equals_loops_over_images_and_captions(num_captions, num_mixed, targets):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    rng = np.random.default_rng(7)
    image_logits, text_logits = rng.normal(0, 4, (num_mixed, num_captions)), rng.normal(0, 4, (num_captions, num_mixed))
    clean = softmax(clean_logits(num_captions, seed=4), 1) if targets == "self" else np.eye(num_captions)
    tensors = torch.from_numpy(clean)
    wanted_images = image_targets(pairs, num_captions, tensors[pairs.own], tensors[pairs.partner])
    wanted_texts, has_mass = caption_targets(pairs, 0, num_captions, num_captions, tensors)
    loss = mixed_info_nce(
        torch.from_numpy(image_logits), wanted_images, torch.from_numpy(text_logits), wanted_texts, has_mass.sum().double()
    )
    w = dense_w(pairs, num_captions)
    by_image = [-(w[m] @ clean * np.log(softmax(image_logits[m], 0))).sum() for m in range(num_mixed)]
    by_text = []
    for caption in np.flatnonzero(w.sum(0)):
        shared = clean[caption] @ np.divide(w, w.sum(0), out=np.zeros_like(w), where=w.sum(0) > 0).T
        by_text.append(-(shared / shared.sum() * np.log(softmax(text_logits[caption], 0))).sum())
    assert float(loss) == pytest.approx((np.mean(by_image) + np.mean(by_text)) / 2, rel=1e-10)


def test_a_caption_without_mass_changes_nothing():
    """The loss of three captions, one of them in no mixed image, whatever its logits."""
    pairs = MixedPairs(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.7, 0.6]))
    targets, has_mass = caption_targets(pairs, 0, 3, 3)
    image_logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    losses = set()
    for value in (-5.0, 0.0, 60.0):
        text_logits = torch.tensor([[1.0, 2.0], [0.5, -1.0], [value, -value]], requires_grad=True)
        loss = mixed_info_nce(image_logits, image_targets(pairs, 3), text_logits, targets, has_mass.sum().float())
        (gradient,) = torch.autograd.grad(loss, text_logits)
        losses.add(loss.item())
        assert gradient[2].eq(0).all() and gradient[:2].ne(0).all()
    assert len(losses) == 1
