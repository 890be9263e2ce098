"""InfoNCE over the global batch."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, arange

from timix_pl.core.errors import ShapeError


class PairLogits(NamedTuple):
    """Similarities of this rank's B rows to all G rows of the other side, times the inverse temperature."""

    image_to_text: Float[Tensor, "B G"]
    text_to_image: Float[Tensor, "B G"]


def pair_logits(
    image_features: Float[Tensor, "B D"],
    text_features: Float[Tensor, "B D"],
    all_image_features: Float[Tensor, "G D"],
    all_text_features: Float[Tensor, "G D"],
    logit_scale: Float[Tensor, "..."],
) -> PairLogits:
    """The logits of both directions.

    Args:
        image_features: L2-normalised; this rank's rows.
        all_image_features: the gathered rows of all ranks, in rank order.
        logit_scale: inverse temperature, unitless, already exponentiated and clamped.
    Raises:
        ShapeError: the batch sizes differ.
    """
    if image_features.shape != text_features.shape or all_image_features.shape != all_text_features.shape:
        raise ShapeError(
            f"image features {tuple(image_features.shape)} and text features {tuple(text_features.shape)} must have the same shape"
        )
    if all_text_features is text_features and all_image_features is image_features:
        logits = logit_scale * image_features @ text_features.T
        return PairLogits(logits, logits.T)
    return PairLogits(logit_scale * image_features @ all_text_features.T, logit_scale * text_features @ all_image_features.T)


def info_nce(logits: PairLogits, first: int = 0) -> Float[Tensor, ""]:
    """Symmetric InfoNCE.

    Args:
        logits: from :func:`pair_logits`.
        first: position of row 0 in the global batch.
    Returns:
        Mean over B and both directions, in nats; its average over ranks is the full-batch loss.
    Source: Radford et al. 2021, figure 3.
    """
    labels = arange(len(logits.image_to_text), device=logits.image_to_text.device) + first
    return (F.cross_entropy(logits.image_to_text, labels) + F.cross_entropy(logits.text_to_image, labels)) / 2
