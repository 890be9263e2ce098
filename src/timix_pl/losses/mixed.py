"""The loss of mixed images: soft targets for InfoNCE and for the pairwise sigmoid loss.

W (mixed images by captions) holds lam at an image's own caption and 1 - lam at its partner's. Columns index the global batch on every rank.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class MixedPairs(NamedTuple):
    """Which captions the mixed images contain, as positions in the global batch, and the share of the own one."""

    own: Int[Tensor, " M"]
    partner: Int[Tensor, " M"]
    lam: Float[Tensor, " M"]

    def weights(self, first_caption: int, num_captions: int) -> Float[Tensor, "M K"]:
        """Columns ``first_caption`` to ``first_caption + num_captions`` of W. An image that is its own partner has 1 at its caption."""
        columns = torch.arange(first_caption, first_caption + num_captions, device=self.lam.device)
        return self.lam[:, None] * (self.own[:, None] == columns) + (1 - self.lam[:, None]) * (self.partner[:, None] == columns)


def image_targets(
    pairs: MixedPairs, num_captions: int, clean_own: Tensor | None = None, clean_partner: Tensor | None = None
) -> Float[Tensor, "M G"]:
    """Targets of the mixed images over all captions; rows sum to 1.

    Args:
        pairs: this rank's mixed images.
        clean_own: the clean pass's probabilities over captions for each mixed image's own image (M G); None: one-hots.
        clean_partner: likewise for its partner.
    """
    if clean_own is None or clean_partner is None:
        return pairs.weights(0, num_captions)
    return torch.lerp(clean_partner, clean_own, pairs.lam[:, None])


def caption_targets(
    all_pairs: MixedPairs, first: int, num_rows: int, num_captions: int, clean: Float[Tensor, "B G"] | None = None
) -> tuple[Float[Tensor, "B M"], Bool[Tensor, " B"]]:
    """Targets of this rank's captions over all mixed images, and which captions have any mass in W (the others' rows are zero).

    One-hot: the columns of W divided by their sums. Self: the clean probability of image j is shared among the mixed images that contain
    it, in proportion to W's column j, and the result is normalised.

    Args:
        all_pairs: the mixed images of all ranks.
        first: position of this rank's first caption in the global batch; ``num_rows``: its captions.
        num_captions: G.
        clean: the clean pass's probabilities of this rank's captions over all images; None: one-hots.
    """
    tiny = torch.finfo(all_pairs.lam.dtype).tiny
    weights = all_pairs.weights(first, num_rows).T
    mass = weights.sum(1)
    if clean is None:
        targets = weights / mass.clamp_min(tiny)[:, None]
    else:
        own, partner, lam = all_pairs
        column_mass = lam.new_zeros(num_captions).index_add_(0, own, lam).index_add_(0, partner, 1 - lam).clamp_min(tiny)
        shared = clean[:, own] * (lam / column_mass[own]) + clean[:, partner] * ((1 - lam) / column_mass[partner])
        targets = shared / shared.sum(1, keepdim=True).clamp_min(tiny) * (mass > 0)[:, None]
    return targets, mass > 0


def mixed_info_nce(
    image_logits: Float[Tensor, "M G"], image_soft_targets: Float[Tensor, "M G"], text_logits: Float[Tensor, "B M"],
    text_soft_targets: Float[Tensor, "B M"], num_captions_with_mass: Float[Tensor, ""], world_size: int = 1,
) -> Float[Tensor, ""]:  # fmt: skip
    """Symmetric soft-target InfoNCE of mixed images.

    Args:
        image_logits: this rank's mixed images against all captions.
        text_logits: this rank's captions against all mixed images.
        num_captions_with_mass: over all ranks; captions without mass are left out of the mean.
    Returns:
        In nats; its average over ranks is the full-batch loss.
    Source: Jiang et al. 2024, equations 6 to 8.
    """
    by_image = F.cross_entropy(image_logits, image_soft_targets)
    by_text = -(text_soft_targets * text_logits.log_softmax(1)).sum() * world_size / num_captions_with_mass.clamp_min(1)
    return (by_image + by_text) / 2
