"""From the encoded batch to the loss and its named terms."""

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.distributed import gather, sum_over_ranks, world_size
from timix_pl.core.types import LossOutput, MixPlan, RegionBatch
from timix_pl.losses.contrastive.info_nce import InfoNce
from timix_pl.losses.contrastive_loss import ContrastiveLoss
from timix_pl.losses.pairs import Pairs
from timix_pl.losses.patch_text import patch_text
from timix_pl.models.dual_encoder import Encoded


class Objective:
    """loss = contrastive(clean) + gamma * mixed + ``pta_weight`` * patch_text, in fp32 whatever the towers compute in.

    Args:
        loss: the contrastive loss; None: InfoNCE.
        negatives: ``all_ranks``, images meet the captions of the global batch; ``own_rank``, only those of their rank's batch.
        targets: ``one_hot`` or ``self``, for mixed images.
        pta_weight: weight of the PTA loss.
        tile_rows: rows and columns of a tile of logits; None: chosen for the device. It changes memory and time, not the loss.
    """

    def __init__(
        self,
        *,
        loss: ContrastiveLoss | None = None,
        negatives: str = "all_ranks",
        targets: str = "self",
        pta_weight: float = 1.0,
        tile_rows: int | None = None,
    ):
        self.loss, self.targets, self.pta_weight, self.tile_rows = loss or InfoNce(), targets, pta_weight, tile_rows
        self.all_ranks = negatives == "all_ranks"

    def __call__(self, encoded: Encoded, regions: RegionBatch | None, *, first: int, gamma: float = 1.0) -> LossOutput:
        """The loss of this rank; its average over ranks is the full batch's.

        Args:
            encoded: from :meth:`DualEncoder.forward`.
            regions: the region batch that ``encoded.region_logits`` belongs to.
            first: position of row 0 in the global batch.
            gamma: weight of the mixed images' loss.
        Returns:
            The loss, and the terms ``info_nce`` (or ``siglip``), ``mixed`` and ``patch_text``, unweighted, those that there are.
        """
        output = self.contrastive(encoded, first=first, gamma=gamma)
        if encoded.region_logits is None or regions is None:
            return output
        num_phrases = sum_over_ranks(output.loss.new_full((), len(regions.patch_labels)))
        term = self.regions(encoded.region_logits, regions.patch_labels, num_phrases)
        return LossOutput(output.loss + self.pta_weight * term, output.terms | {"patch_text": term})

    def contrastive(self, encoded: Encoded, *, first: int, gamma: float = 1.0) -> LossOutput:
        """All but the PTA term. See :meth:`__call__`."""
        with torch.autocast(encoded.image_features.device.type, enabled=False):
            return self._contrastive(encoded, first, gamma)

    def regions(
        self, region_logits: Float[Tensor, "R P"], patch_labels: Float[Tensor, "R P"], num_phrases: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """The PTA term of this rank, unweighted. ``num_phrases``: over all ranks."""
        with torch.autocast(region_logits.device.type, enabled=False):
            return patch_text(region_logits, patch_labels, num_phrases, world_size())

    def _contrastive(self, encoded: Encoded, first: int, gamma: float) -> LossOutput:
        images, plan = encoded.image_features.float(), encoded.plan
        captions = self._gathered(encoded.text_features)
        if plan is not None and encoded.mixed_image_features is None and not encoded.joined:
            loss = self._loss(encoded, images, captions, first, pairs=_one_set(images, plan))
            return LossOutput(loss, {"mixed": loss})
        loss = self._loss(encoded, images, captions, first)
        if plan is None or encoded.mixed_image_features is None:
            return LossOutput(loss, {self.loss.choice: loss})
        mixed_images = encoded.mixed_image_features.float()
        if encoded.mixed_text_features is not None:
            first_mixed = first // len(images) * len(mixed_images)
            mixed = self._loss(encoded, mixed_images, self._gathered(encoded.mixed_text_features), first_mixed)
        else:
            pairs, clean = Pairs(plan.rows, plan.partners, plan.lam.float()), images.detach() if self.targets == "self" else None
            mixed = self._loss(encoded, mixed_images, captions, first, pairs=pairs, clean=clean)
        return LossOutput(loss + gamma * mixed, {self.loss.choice: loss, "mixed": mixed})

    def _gathered(self, captions: Float[Tensor, "B D"]) -> Float[Tensor, "G D"]:
        return gather(captions.float()) if self.all_ranks else captions.float()

    def _loss(
        self, encoded: Encoded, images: Tensor, captions: Tensor, first: int, *, pairs: Pairs | None = None, clean: Tensor | None = None
    ) -> Float[Tensor, ""]:
        first = first if self.all_ranks else 0
        scale, bias = encoded.logit_scale.float(), None if encoded.logit_bias is None else encoded.logit_bias.float()
        all_ranks, tile_rows = self.all_ranks, self.tile_rows
        return self.loss(images, captions, scale, bias, pairs, first=first, clean=clean, all_ranks=all_ranks, tile_rows=tile_rows)


def _one_set(images: Float[Tensor, "B D"], plan: MixPlan) -> Pairs:
    """W of clean and mixed images in one set: a clean image is its own wholly."""
    own, _, lam = Pairs.clean(images)
    return Pairs(own, own.index_copy(0, plan.rows, plan.partners), lam.index_copy(0, plan.rows, plan.lam.float()))
