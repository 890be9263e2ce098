"""The loss of the PTA head, which predicts the patches that a phrase describes."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def patch_text(logits: Float[Tensor, "R P"], labels: Float[Tensor, "R P"]) -> Float[Tensor, ""]:
    """Binary cross-entropy, in nats, summed over phrases and patches.

    Args:
        labels: 1 where the phrase's box covers the patch, else 0.
    Source: Jiang et al. 2024, equation 3.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
