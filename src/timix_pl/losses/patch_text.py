"""What teaches the PTA head: which patches a phrase describes."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def patch_text(
    logits: Float[Tensor, "R P"], labels: Float[Tensor, "R P"], num_phrases: Float[Tensor, ""], world_size: int = 1
) -> Float[Tensor, ""]:
    """Binary cross-entropy, summed over the patches, divided by the global number of phrases and by P.

    Args:
        labels: 1 where the phrase's box covers the patch, else 0.
        num_phrases: over all ranks.
    Returns:
        In nats per patch; its average over ranks is the full-batch loss.
    Source: Jiang et al. 2024, equation 3.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
    return total * world_size / (num_phrases.clamp_min(1) * labels.shape[1])
