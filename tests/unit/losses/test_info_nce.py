"""InfoNCE against open_clip's ClipLoss, value and gradient; soft targets against loops over images and captions."""

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss

from tests.unit.losses.features import dense_w, random_features, random_pairs, softmax, value_and_gradients
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.pairs import Pairs

SCALE = torch.tensor([8.0], dtype=torch.float64)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 16])
@pytest.mark.parametrize("tile_rows", [3, None])
def test_equals_open_clip_in_value_and_gradient(num_rows, tile_rows):
    leaves = random_features(num_rows, 5, 1), random_features(num_rows, 5, 2), SCALE
    ours = value_and_gradients(lambda *tensors: info_nce(*tensors, tile_rows=tile_rows), *leaves)
    for mine, reference in zip(ours, value_and_gradients(ClipLoss(), *leaves), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_captions", "num_mixed"), [(8, 8), (9, 4), (7, 2), (12, 11)])
@pytest.mark.parametrize("self_targets", [False, True])
def test_soft_targets_equal_loops_over_images_and_captions(num_captions, num_mixed, self_targets):
    pairs = random_pairs(num_captions, num_mixed, seed=num_captions)
    images, captions, clean = (random_features(rows, 5, seed) for rows, seed in ((num_mixed, 1), (num_captions, 2), (num_captions, 3)))
    loss = info_nce(images, captions, SCALE, pairs, clean=clean if self_targets else None, tile_rows=3)
    w, logits, clean_logits = dense_w(pairs, num_captions), *((8 * x @ captions.T).numpy() for x in (images, clean))
    to_captions, to_images = (softmax(clean_logits, axis) for axis in (1, 0)) if self_targets else [np.eye(num_captions)] * 2
    by_image = [-(w[m] @ to_captions * np.log(softmax(logits[m], 0))).sum() for m in range(num_mixed)]
    by_caption = []
    for caption in np.flatnonzero(w.sum(0)):
        target = np.zeros(num_mixed)
        for image in np.flatnonzero(w.sum(0)):
            target += to_images[image, caption] * w[:, image] / w[:, image].sum()
        by_caption.append(-(target / target.sum() * np.log(softmax(logits[:, caption], 0))).sum())
    assert float(loss) == pytest.approx((np.mean(by_image) + np.mean(by_caption)) / 2, rel=1e-10)


def test_with_certain_clean_predictions_self_is_one_hot():
    pairs, captions = random_pairs(9, 9, seed=0), torch.eye(9, dtype=torch.float64)
    images = random_features(9, 9, seed=1)
    one_hot, from_itself = (info_nce(images, captions, torch.tensor(200.0), pairs, clean=clean) for clean in (None, captions))
    torch.testing.assert_close(one_hot, from_itself)


def test_an_image_mixed_with_itself_is_simply_itself():
    images, captions, own = random_features(4, 5, seed=1), random_features(4, 5, seed=2), torch.arange(4)
    mixed = info_nce(images, captions, SCALE, Pairs(own, own, torch.tensor([0.3, 0.5, 0.0, 1.0], dtype=torch.float64)))
    torch.testing.assert_close(mixed, info_nce(images, captions, SCALE))


def test_a_caption_without_mass_is_only_a_negative():
    """Caption 2 is in no image: its direction is left out of the mean, and images are still told from it."""
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.7, 0.6], dtype=torch.float64))
    images, captions = random_features(2, 5, seed=1), random_features(3, 5, seed=2)
    _, _, gradient, _ = value_and_gradients(lambda *tensors: info_nce(*tensors, pairs), images, captions, SCALE)
    probabilities = softmax((8 * images @ captions.T).numpy(), 1)
    np.testing.assert_allclose(gradient[2], 8 * probabilities[:, 2] @ images.numpy() / 4, rtol=1e-10)
