"""The memory that tiles save."""

import pytest
import torch

from benchmarks.loss import draw, forget_peak, peak_bytes
from tests.gpu.devices import DEVICES
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.pairs import Pairs


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_the_tiled_loss_needs_less_than_half_of_one_matrix_of_logits(device, mixed):
    """Forward and backward of 32,768 pairs, whose logits are 4.3 GB, several times over without tiles; on a CPU of 8,192, 0.27 GB."""
    num_pairs = 32768 if device == "cuda" else 8192
    images, captions, scale, _ = draw(num_pairs, device)
    pairs = clean = None
    if mixed:
        own = torch.arange(num_pairs, device=device)
        pairs, clean = Pairs(own, own.roll(-1), torch.full((num_pairs,), 0.6, device=device)), images.detach()
    forget_peak(device)
    before = peak_bytes(device)
    info_nce(images, captions, scale, pairs, clean=clean).backward()
    assert peak_bytes(device) - before < num_pairs**2 * 4 / 2
    assert all(x.grad.isfinite().all() for x in (images, captions, scale))
