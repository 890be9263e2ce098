"""From the encoded batch to the loss and its named terms."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.distributed import gather, sum_over_ranks, world_size
from timix_pl.core.types import LossOutput, MixPlan, RegionBatch
from timix_pl.losses.info_nce import PairLogits, info_nce, pair_logits
from timix_pl.losses.mixed import MixedPairs, caption_targets, image_targets, mixed_info_nce
from timix_pl.losses.patch_text import patch_text
from timix_pl.losses.siglip import siglip, soft_siglip
from timix_pl.models.dual_encoder import Encoded


class _Gathered(NamedTuple):
    """This rank's rows, all ranks' rows, and the scale and bias of their logits."""

    image: Float[Tensor, "B D"]
    text: Float[Tensor, "B D"]
    all_image: Float[Tensor, "G D"]
    all_text: Float[Tensor, "G D"]
    scale: Float[Tensor, " 1"]
    bias: Float[Tensor, " 1"] | None

    def logits(self) -> PairLogits:
        logits = pair_logits(self.image, self.text, self.all_image, self.all_text, self.scale)
        return logits if self.bias is None else PairLogits(logits.image_to_text + self.bias, logits.text_to_image + self.bias)


class Objective:
    """loss = contrastive(clean) + gamma * mixed + ``pta_weight`` * patch_text, in fp32 whatever the towers compute in.

    Args:
        loss: ``info_nce`` or ``siglip``.
        targets: ``one_hot`` or ``self``, for mixed images.
        pta_weight: weight of the PTA loss.
    """

    def __init__(self, *, loss: str = "info_nce", targets: str = "self", pta_weight: float = 1.0):
        self.loss, self.targets, self.pta_weight = loss, targets, pta_weight

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
        clean = self._gathered(encoded)
        terms: dict[str, Tensor] = {}
        if encoded.plan is not None and encoded.mixed_image_features is None and not encoded.joined:
            terms["mixed"] = loss = self._replaced(clean, encoded.plan, first)
        else:
            logits = clean.logits()
            terms[self.loss] = loss = self._hard(logits, first)
            if encoded.mixed_image_features is not None and encoded.plan is not None:
                terms["mixed"] = self._mixed(encoded, clean, logits, first)
                loss = loss + gamma * terms["mixed"]
        return LossOutput(loss, terms)

    @staticmethod
    def _gathered(encoded: Encoded) -> _Gathered:
        image, text = encoded.image_features.float(), encoded.text_features.float()
        bias = None if encoded.logit_bias is None else encoded.logit_bias.float()
        return _Gathered(image, text, gather(image), gather(text), encoded.logit_scale.float(), bias)

    def _hard(self, logits: PairLogits, first: int) -> Float[Tensor, ""]:
        return siglip(logits.image_to_text, first) if self.loss == "siglip" else info_nce(logits, first)

    def _replaced(self, clean: _Gathered, plan: MixPlan, first: int) -> Float[Tensor, ""]:
        """One image set of clean and mixed rows; a clean row is an image that is its own with lam 1."""
        own = torch.arange(len(clean.image), device=clean.image.device) + first
        partner = own.index_copy(0, plan.rows, plan.partners + first)
        lam = torch.ones_like(own, dtype=torch.float32).index_copy(0, plan.rows, plan.lam.float())
        return self._soft(clean, MixedPairs(own, partner, lam), first, None)

    def _mixed(self, encoded: Encoded, clean: _Gathered, logits: PairLogits, first: int) -> Float[Tensor, ""]:
        assert encoded.plan is not None and encoded.mixed_image_features is not None
        mixed_image = encoded.mixed_image_features.float()
        all_mixed = gather(mixed_image)
        plan = encoded.plan
        if encoded.mixed_text_features is not None:
            mixed_text = encoded.mixed_text_features.float()
            joined = clean._replace(image=mixed_image, text=mixed_text, all_image=all_mixed, all_text=gather(mixed_text))
            return self._hard(joined.logits(), first // len(clean.image) * len(mixed_image))
        pairs = MixedPairs(plan.rows + first, plan.partners + first, plan.lam.float())
        mixed = clean._replace(image=mixed_image, all_image=all_mixed)
        return self._soft(mixed, pairs, first, (logits, plan) if self.targets == "self" else None)

    def _soft(self, gathered: _Gathered, pairs: MixedPairs, first: int, clean: tuple[PairLogits, MixPlan] | None) -> Float[Tensor, ""]:
        """Soft-target loss of the images in ``gathered`` against all captions. ``clean``: logits of the clean pass, for self targets."""
        num_captions = len(gathered.all_text)
        bias = 0.0 if gathered.bias is None else gathered.bias
        image_logits = gathered.scale * gathered.image @ gathered.all_text.T + bias
        if self.loss == "siglip":
            own = partner = None
            if clean is not None:
                probabilities = clean[0].image_to_text.detach().sigmoid()
                own, partner = probabilities[clean[1].rows], probabilities[clean[1].partners]
            return soft_siglip(image_logits, image_targets(pairs, num_captions, own, partner))
        all_pairs = MixedPairs(gather(pairs.own), gather(pairs.partner), gather(pairs.lam))
        text_logits = gathered.scale * gathered.text @ gathered.all_image.T
        own = partner = text_probabilities = None
        if clean is not None:
            probabilities = clean[0].image_to_text.detach().softmax(1)
            own, partner = probabilities[clean[1].rows], probabilities[clean[1].partners]
            text_probabilities = clean[0].text_to_image.detach().softmax(1)
        text_targets, has_mass = caption_targets(all_pairs, first, len(gathered.text), num_captions, text_probabilities)
        num_with_mass = sum_over_ranks(has_mass.sum().float())
        return mixed_info_nce(
            image_logits, image_targets(pairs, num_captions, own, partner), text_logits, text_targets, num_with_mass, world_size()
        )
