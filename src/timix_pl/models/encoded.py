"""The output of one forward pass of a training step."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import register_dataclass

from timix_pl.core.types import MixPlan


@dataclass(kw_only=True)
class Encoded:
    """The output of one forward pass of a training step. Features are L2-normalised; None: not computed.

    Args:
        image_features: of the clean images; with ``compute=replace`` of the one set of clean and mixed images.
        text_features: of the captions.
        mixed_image_features: of the mixed images, with ``compute=extra``.
        mixed_text_features: of the joined captions, with ``compute=extra``.
        joined: captions were joined, so each mixed image has its own text: in ``mixed_text_features``, or with ``compute=replace`` in
            ``text_features``.
        plan: how images were mixed.
        region_logits: PTA logits of region images.
        mixed_logits, mixed_labels: PTA logits of mixed images that teach the head, and their labels.
        logit_scale: inverse temperature.
        logit_bias: added to all logits.
        sums: for each loss term that is a sum over items, the sum over the items of this pass.
        term_rows: for each :class:`timix_pl.losses.term.BatchTerm`, the result of its forward pass.
        touched: names of the heads that were used.
    """

    image_features: Float[Tensor, "B D"] | None = None
    text_features: Float[Tensor, "B D"] | None = None
    mixed_image_features: Float[Tensor, "M D"] | None = None
    mixed_text_features: Float[Tensor, "M D"] | None = None
    joined: bool = False
    plan: MixPlan | None = None
    region_logits: Float[Tensor, "R P"] | None = None
    mixed_logits: Float[Tensor, "Q K"] | None = None
    mixed_labels: Float[Tensor, "Q K"] | None = None
    logit_scale: Float[Tensor, " 1"] | None = None
    logit_bias: Float[Tensor, " 1"] | None = None
    sums: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    term_rows: dict[str, Float[Tensor, "B ..."]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()


# FSDP2 needs to find the tensors in a module's output; registered, it finds those inside of Encoded.
register_dataclass(Encoded)
