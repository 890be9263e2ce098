"""InfoNCE over the global batch, for clean and mixed images."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import LOSSES
from timix_pl.core.distributed import logsumexp_over_ranks, sum_over_ranks, world_size
from timix_pl.losses.contrastive_loss import ContrastiveLoss
from timix_pl.losses.pairs import Pairs
from timix_pl.losses.tiles import OneHots, SelfTargets, Softmaxes, Terms, automatic_tile_rows, logsumexps, tiled_loss


def info_nce(
    images: Float[Tensor, "N D"],
    captions: Float[Tensor, "G D"],
    logit_scale: Float[Tensor, "..."],
    pairs: Pairs | None = None,
    *,
    first: int = 0,
    clean: Float[Tensor, "B D"] | None = None,
    all_ranks: bool = True,
    tile_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of this rank's images and all captions.

    Both directions use the same logits. The targets come from the matrix W (images by captions, see :class:`Pairs`). An image's targets are
    its row of W. A caption's targets are its column of W, over the images of all ranks, divided by the column's sum; a caption whose column
    is 0 is left out of the mean.

    With self targets (``clean``), each one-hot in W is replaced by a softmax of the clean pass in the same direction. An image's targets
    are its row of W times the clean images' softmaxes over the captions. A caption's targets are the softmax over the clean images; the
    share of each clean image is split among the mixed images that contain it, in proportion to W.

    Ranks exchange the logsumexps of the captions' columns, not the images.

    Args:
        images: L2-normalised; of this rank.
        captions: L2-normalised; of all ranks, in rank order.
        logit_scale: inverse temperature, unitless, already exponentiated and clamped.
        pairs: the rows of W for these images; None: image n has caption ``first`` + n.
        first: position of this rank's first caption in ``captions``.
        clean: this rank's clean images, L2-normalised, for self targets; they get no gradient. None: one-hot targets.
        all_ranks: ``captions`` are those of all ranks, and every rank calls this function. False: nothing is exchanged.
        tile_rows: see :func:`tiled_loss`.
    Returns:
        Mean over images and captions, in nats; its average over ranks is the loss of the full batch.
    Source: Radford et al. 2021, figure 3; mixed images: Jiang et al. 2024, equations 6 to 8.
    """
    num_ranks = world_size() if all_ranks else 1
    if pairs is None and num_ranks == 1 and len(captions) <= (tile_rows or automatic_tile_rows(captions.device)):
        return _of_all_logits(logit_scale * images @ captions.T)
    pairs = pairs or Pairs.clean(images)
    mass = pairs.mass(len(captions), first)
    rows, columns = logsumexps(images, captions, logit_scale, tile_rows=tile_rows)
    if all_ranks:
        mass, columns = sum_over_ranks(mass), logsumexp_over_ranks(columns)
    has_mass = (mass > 0).to(mass.dtype)
    image_weight = 1 / (2 * len(images))
    caption_weights = has_mass * num_ranks / (2 * has_mass.sum())
    per_mass = has_mass / mass.clamp_min(torch.finfo(mass.dtype).tiny)
    targets: OneHots | SelfTargets
    if clean is None:
        targets = OneHots(image_weight + caption_weights * per_mass, first)
    else:
        own = slice(first, first + len(clean))
        clean_rows, clean_columns = logsumexps(clean, captions, logit_scale, log_weights=has_mass[own].log(), tile_rows=tile_rows)
        if all_ranks:
            clean_columns = logsumexp_over_ranks(clean_columns)
        density = Softmaxes(clean_rows - math.log(image_weight), clean_columns - caption_weights.log(), per_mass[own].log())
        targets = SelfTargets(clean, density)
    potential = Softmaxes(rows - math.log(image_weight), columns - caption_weights.log())
    potential_value = image_weight * rows.sum() + caption_weights @ columns / num_ranks
    return potential_value + tiled_loss(images, captions, logit_scale, None, Terms(potential, pairs, targets), tile_rows=tile_rows)


def _of_all_logits(logits: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """The loss as in figure 3 of Radford et al., from a matrix of all logits."""
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@LOSSES.register("info_nce")
class InfoNce(ContrastiveLoss):
    """See :func:`info_nce`. It has no bias."""

    def __call__(
        self,
        images: Float[Tensor, "N D"],
        captions: Float[Tensor, "G D"],
        logit_scale: Float[Tensor, "..."],
        logit_bias: Tensor | None,
        pairs: Pairs | None = None,
        **options: Any,
    ) -> Float[Tensor, ""]:
        """See :class:`ContrastiveLoss`."""
        return info_nce(images, captions, logit_scale, pairs, **options)
