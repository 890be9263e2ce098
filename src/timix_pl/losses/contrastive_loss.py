"""Base class of contrastive losses."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from timix_pl.losses.pairs import Pairs


class ContrastiveLoss(ABC):
    """A loss of this rank's images and all captions. Keyword-only parameters of the constructor are options of the configuration."""

    choice: ClassVar[str]
    """The name that it is registered under."""
    init_logit_scale: ClassVar[float] = 1 / 0.07
    """Initial inverse temperature, unless ``model.init_logit_scale`` is set."""
    init_logit_bias: ClassVar[float | None] = None
    """Initial bias of the logits; None: the model has no bias parameter."""

    @abstractmethod
    def __call__(
        self,
        images: Float[Tensor, "N D"],
        captions: Float[Tensor, "G D"],
        logit_scale: Float[Tensor, "..."],
        logit_bias: Float[Tensor, "..."] | None,
        pairs: Pairs | None = None,
        *,
        first: int = 0,
        clean: Float[Tensor, "B D"] | None = None,
        all_ranks: bool = True,
        tile_rows: int | None = None,
    ) -> Float[Tensor, ""]:
        """This rank's loss; its average over ranks is the loss of the full batch.

        For the arguments see :func:`timix_pl.losses.contrastive.info_nce.info_nce`.
        """
