"""InfoNCE against open_clip's ClipLoss, value and gradient."""

import jaxtyping
import pytest
import torch
from open_clip.loss import ClipLoss

from tests.unit.losses.features import random_features
from timix_pl.core.errors import ShapeError
from timix_pl.losses.info_nce import info_nce, pair_logits


def value_and_gradients(loss_of, num_rows, seed):
    image, text = (random_features(num_rows, 5, seed + n).requires_grad_() for n in range(2))
    scale = torch.tensor([8.0], dtype=torch.float64, requires_grad=True)
    loss = loss_of(image, text, scale)
    return loss.detach(), torch.autograd.grad(loss, (image, text, scale))


@pytest.mark.parametrize("num_rows", [1, 2, 7, 16])
def test_equals_open_clip_in_value_and_gradient(num_rows):
    ours = value_and_gradients(lambda image, text, scale: info_nce(pair_logits(image, text, image, text, scale)), num_rows, seed=1)
    theirs = value_and_gradients(ClipLoss(), num_rows, seed=1)
    torch.testing.assert_close(ours[0], theirs[0].reshape(()), rtol=1e-12, atol=1e-12)
    for mine, reference in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)


def test_shares_of_a_batch_average_to_the_whole():
    image, text = random_features(12, 5, seed=3), random_features(12, 5, seed=4)
    scale = torch.tensor([8.0], dtype=torch.float64)
    whole = info_nce(pair_logits(image, text, image, text, scale))
    shares = [
        info_nce(pair_logits(image[first : first + 4], text[first : first + 4], image, text, scale), first=first)
        for first in range(0, 12, 4)
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)
    assert len({round(float(share), 6) for share in shares}) == 3


@pytest.fixture
def production():
    """Without the checks of shapes that only tests run."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_batches_that_differ_are_refused(production):
    image, text, scale = random_features(4, 5, seed=0), random_features(3, 5, seed=1), torch.ones(1, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"\(4, 5\).*\(3, 5\)"):
        pair_logits(image, text, image, text, scale)
