"""Pairwise sigmoid loss (SigLIP), for clean and mixed images."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import LOSSES
from timix_pl.losses.contrastive_loss import ContrastiveLoss
from timix_pl.losses.pairs import Pairs
from timix_pl.losses.tiles import OneHots, SelfTargets, Sigmoids, Terms, tiled_loss


def siglip(
    images: Float[Tensor, "N D"],
    captions: Float[Tensor, "G D"],
    logit_scale: Float[Tensor, "..."],
    logit_bias: Float[Tensor, "..."] | None,
    pairs: Pairs | None = None,
    *,
    first: int = 0,
    clean: Float[Tensor, "B D"] | None = None,
    tile_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Sigmoid loss of this rank's images and all captions; a pair may match partly.

    If the label of a pair is z = 1 with probability w, else -1, the expected loss of the pair with logit l is
    -w log sigmoid(l) - (1 - w) log sigmoid(-l). With log sigmoid(l) = l + log sigmoid(-l), this is softplus(l) - w l, the binary
    cross-entropy with the soft label w. For w of 0 or 1 it is the loss of the paper. Its minimum is at sigmoid(l) = w: a mixed image learns
    to match its own caption with probability lam and its partner's with 1 - lam. Each pair is independent of the others, so columns need
    no normalisation.

    Args:
        images, captions, logit_scale, pairs, first, tile_rows: see :func:`info_nce`.
        logit_bias: added to all logits; None: no bias.
        clean: this rank's clean images, for self targets: the labels are W times the sigmoids of the clean pass. None: the labels are W.
    Returns:
        Sum over captions, mean over images, in nats; its average over ranks is the loss of the full batch.
    Source: Zhai et al. 2023, equation 1: the mean over images of the sum over captions of -log sigmoid(z * logit), z = 1 for the pair,
        else -1.
    """
    pairs = pairs or Pairs.clean(images)
    weight = 1 / len(images)
    targets: OneHots | SelfTargets
    targets = OneHots(captions.new_full((len(captions),), weight), first) if clean is None else SelfTargets(clean, Sigmoids(weight))
    return tiled_loss(images, captions, logit_scale, logit_bias, Terms(Sigmoids(weight), pairs, targets), tile_rows=tile_rows)


@LOSSES.register("siglip")
class SigLip(ContrastiveLoss):
    """See :func:`siglip`. Temperature and bias start as in the paper, section 3.2."""

    init_logit_scale = 10.0
    init_logit_bias = -10.0

    def __call__(
        self,
        images: Float[Tensor, "N D"],
        captions: Float[Tensor, "G D"],
        logit_scale: Float[Tensor, "..."],
        logit_bias: Float[Tensor, "..."] | None,
        pairs: Pairs | None = None,
        *,
        all_ranks: bool = True,
        **options: Any,
    ) -> Float[Tensor, ""]:
        """See :class:`ContrastiveLoss`. ``all_ranks`` has no effect, because ranks exchange nothing."""
        return siglip(images, captions, logit_scale, logit_bias, pairs, **options)
