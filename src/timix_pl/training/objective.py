"""The loss of a step: a weighted sum of terms."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from timix_pl.core.distributed import gather, sum_over_ranks, world_size
from timix_pl.core.errors import ModelError
from timix_pl.core.types import Batch, LossOutput, MixPlan, PairBatch
from timix_pl.losses.contrastive.info_nce import InfoNce
from timix_pl.losses.contrastive_loss import ContrastiveLoss
from timix_pl.losses.pairs import Pairs
from timix_pl.losses.patch_text import patch_text
from timix_pl.losses.term import BatchTerm, ChunkTerm
from timix_pl.models.encoded import Encoded


class Contrastive:
    """The terms that compare pairs of the global batch: loss(clean) + gamma * loss(mixed) + further terms.

    Args:
        loss: the contrastive loss; None: InfoNCE.
        negatives: ``all_ranks``: captions of the global batch; ``own_rank``: only captions of the rank's own batch.
        targets: ``one_hot`` or ``self``, for mixed images.
        tile_rows: side of a square tile of logits; None: chosen for the device. It changes memory and time, not the loss.
        terms: further terms, by name.
    """

    def __init__(
        self,
        loss: ContrastiveLoss | None = None,
        *,
        negatives: str = "all_ranks",
        targets: str = "self",
        tile_rows: int | None = None,
        terms: Mapping[str, BatchTerm] | None = None,
    ):
        self.loss, self.targets, self.tile_rows, self.terms = loss or InfoNce(), targets, tile_rows, terms or {}
        self.all_ranks = negatives == "all_ranks"

    def __call__(self, encoded: Encoded, *, first: int, gamma: float = 1.0) -> LossOutput:
        """The terms of this rank's whole batch, always in fp32. Their average over ranks is that of the full batch.

        Args:
            encoded: the features of all pairs.
            first: position of row 0 in the global batch.
            gamma: weight of the mixed images' loss.
        Returns:
            The weighted sum, and the unweighted terms: the clean loss under the name of the loss, ``mixed``, and further terms.
        """
        assert encoded.image_features is not None and encoded.text_features is not None and encoded.logit_scale is not None
        with torch.autocast(encoded.image_features.device.type, enabled=False):
            output = self._of_pairs(encoded, first, gamma)
            images, texts, scale = encoded.image_features.float(), encoded.text_features.float(), encoded.logit_scale.float()
            for name, term in self.terms.items():
                with _WithoutParameters(name, term):
                    value = term.loss(encoded.term_rows[name], images, texts, scale, first=first)
                output = LossOutput(output.loss + term.weight * value, output.terms | {name: value})
        return output

    def _of_pairs(self, encoded: Encoded, first: int, gamma: float) -> LossOutput:
        assert encoded.image_features is not None and encoded.text_features is not None
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
        assert encoded.logit_scale is not None
        first, all_ranks, tile_rows = first if self.all_ranks else 0, self.all_ranks, self.tile_rows
        scale, bias = encoded.logit_scale.float(), None if encoded.logit_bias is None else encoded.logit_bias.float()
        return self.loss(images, captions, scale, bias, pairs, first=first, clean=clean, all_ranks=all_ranks, tile_rows=tile_rows)


class _WithoutParameters(TorchFunctionMode):
    """Inside this context, operations on the parameters of a term are refused."""

    def __init__(self, name: str, term: BatchTerm):
        super().__init__()
        self._name, self._parameters = name, {id(parameter): own for own, parameter in term.named_parameters()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self._parameters:
                raise ModelError(
                    f"loss term '{self._name}': loss() uses the parameter '{self._parameters[id(value)]}', which would get no gradient "
                    "in a batch of several chunks; use it in forward(), and return what loss() needs from there"
                )
        return func(*args, **kwargs or {})


class Objective:
    """The loss of a step: the contrastive terms, and terms that are means over items, such as phrases, questions or words.

    Args:
        contrastive: the terms that compare pairs; None: there are none.
        terms: further terms over items, by name.
        weights: weights of the terms over items that come from the model or the batch; 1 for those not named.
    """

    def __init__(
        self,
        contrastive: Contrastive | None = None,
        *,
        terms: Mapping[str, ChunkTerm] | None = None,
        weights: Mapping[str, float] | None = None,
    ):
        self.contrastive, self._terms = contrastive, terms or {}
        self._weights = {name: term.weight for name, term in self._terms.items()} | dict(weights or {})

    def count_items(self, batch: Batch, device: torch.device, more: Mapping[str, int] | None = None) -> dict[str, Float[Tensor, ""]]:
        """The number of items of each term over items in the global batch. Call it on all ranks together.

        Args:
            batch: this rank's whole batch.
            more: numbers of this rank's items that the batch does not tell.
        """
        own = batch.num_items() | dict(more or {}) | {name: term.num_items(batch) for name, term in self._terms.items()}
        if not own:
            return {}
        zero = torch.zeros((), device=device)  # adding to it copies nothing to a GPU, for which the host would wait
        return dict(zip(own, sum_over_ranks(torch.stack([zero + count for count in own.values()])), strict=True))

    def __call__(self, encoded: Encoded, batch: Batch, num_items: Mapping[str, Tensor], *, gamma: float = 1.0) -> LossOutput:
        """All terms of a batch that was encoded in one pass. For ``num_items`` see :meth:`of_items`."""
        output = self.of_items(encoded, batch, num_items)
        if self.contrastive is None:
            return output
        compared = self.contrastive(encoded, first=batch.first, gamma=gamma)
        return LossOutput(compared.loss + output.loss, compared.terms | output.terms) if output.terms else compared

    def of_items(self, encoded: Encoded, batch: Batch, num_items: Mapping[str, Tensor]) -> LossOutput:
        """The terms over items of a batch or a part of it.

        Args:
            batch: the batch that was encoded, which may be a part of this rank's batch.
            num_items: the number of items of each term in the global batch; see :meth:`count_items`.
        Returns:
            The weighted sum, and the unweighted terms. Summed over the parts of a batch and averaged over ranks, each is a mean over items.
        """
        sums = dict(encoded.sums)
        if encoded.region_logits is not None and isinstance(batch, PairBatch) and batch.regions is not None:
            sums["patch_text"] = patch_text(encoded.region_logits, batch.regions.patch_labels)
        if encoded.mixed_logits is not None and encoded.mixed_labels is not None:
            sums["patch_text_mixed"] = patch_text(encoded.mixed_logits, encoded.mixed_labels)
        terms = {name: total * world_size() / num_items[name].clamp(min=1) for name, total in sums.items()}
        weighted = [self._weights.get(name, 1.0) * value for name, value in terms.items()]
        return LossOutput(torch.stack(weighted).sum() if weighted else torch.zeros(()), terms)


def _one_set(images: Float[Tensor, "B D"], plan: MixPlan) -> Pairs:
    """W for one set of clean and mixed images; a clean image has only its own caption."""
    own, _, lam = Pairs.clean(images)
    return Pairs(own, own.index_copy(0, plan.rows, plan.partners), lam.index_copy(0, plan.rows, plan.lam.float()))
