"""What one forward pass of a training step gives."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import register_dataclass

from timix_pl.core.types import MixPlan


@dataclass(kw_only=True)
class Encoded:
    """What one forward pass of a training step gives. Features are L2-normalised; None: there are none.

    Args:
        image_features: of the clean images, or with ``compute=replace`` of the one set of clean and mixed images.
        text_features: of the captions.
        mixed_image_features: of the mixed images, with ``compute=extra``.
        mixed_text_features: of captions that were joined along with the images, with ``compute=extra``.
        joined: captions were joined, so that each mixed image has a text of its own: in ``mixed_text_features``, or with
            ``compute=replace`` in ``text_features``.
        plan: how images were mixed.
        region_logits: PTA logits of region images.
        logit_scale: inverse temperature.
        logit_bias: added to all logits.
        sums: of each term of the loss that is a sum over items, its sum over those seen here.
        term_rows: what further terms of the loss keep of each row, by the term's name.
        touched: the heads that took part.
    """

    image_features: Float[Tensor, "B D"] | None = None
    text_features: Float[Tensor, "B D"] | None = None
    mixed_image_features: Float[Tensor, "M D"] | None = None
    mixed_text_features: Float[Tensor, "M D"] | None = None
    joined: bool = False
    plan: MixPlan | None = None
    region_logits: Float[Tensor, "R P"] | None = None
    logit_scale: Float[Tensor, " 1"] | None = None
    logit_bias: Float[Tensor, " 1"] | None = None
    sums: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    term_rows: dict[str, Float[Tensor, "B ..."]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()


# FSDP2 looks for the tensors of a module's output.
register_dataclass(Encoded)
