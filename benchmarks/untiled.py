"""The losses of one process with all logits at once, as their definitions read: what the tiled ones are tested and measured against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from timix_pl.losses.pairs import Pairs


def untiled_loss(
    kind: str, images: Tensor, captions: Tensor, scale: Tensor, bias: Tensor | None, pairs: Pairs, clean: Tensor | None = None
) -> Tensor:
    """``info_nce`` or ``siglip`` with one-hot targets, or with self targets from the ``clean`` images."""
    own, partner, lam = pairs.own, pairs.partner, pairs.lam[:, None]
    logits = scale * images @ captions.T + (0.0 if bias is None else bias)
    clean_logits = None if clean is None else (scale * clean @ captions.T + (0.0 if bias is None else bias)).detach()
    one_hots = torch.eye(len(captions), dtype=lam.dtype, device=lam.device) if clean_logits is None else None
    if kind == "siglip":
        said = one_hots if clean_logits is None else clean_logits.sigmoid()
        return F.binary_cross_entropy_with_logits(logits, lam * said[own] + (1 - lam) * said[partner], reduction="sum") / len(images)
    by_image = one_hots if clean_logits is None else clean_logits.softmax(1)
    by_caption = one_hots if clean_logits is None else clean_logits.softmax(0)
    mass = lam.new_zeros(len(captions)).index_add_(0, own, pairs.lam).index_add_(0, partner, 1 - pairs.lam)
    shares = mass.clamp_min(torch.finfo(mass.dtype).tiny)[:, None]
    targets = by_caption[own] * lam / shares[own] + by_caption[partner] * (1 - lam) / shares[partner]
    targets = targets / targets.sum(0).clamp_min(torch.finfo(mass.dtype).tiny)
    by_caption = -(targets * logits.log_softmax(0)).sum(0)[mass > 0].mean()
    return (F.cross_entropy(logits, lam * by_image[own] + (1 - lam) * by_image[partner]) + by_caption) / 2
