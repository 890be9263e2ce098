"""Further terms of the loss, added to the contrastive one."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from timix_pl.core.types import Batch, Seen


class LossTerm(nn.Module, ABC):
    """A term of the loss, in a sum with the contrastive loss. It may have parameters, which are trained and kept in checkpoints.

    A subclass is either a :class:`ChunkTerm` or a :class:`BatchTerm`. Keyword-only parameters of its constructor are options of the
    configuration.

    Args:
        encoder: the dual encoder, to read sizes from. It must not become a submodule.
        weight: of the term in the sum.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""
    reads_batch: ClassVar[bool]
    """It compares the pairs of the global batch. Otherwise it sees them chunk by chunk."""

    def __init__(self, encoder: Any, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight


class ChunkTerm(LossTerm):
    """A term whose items are judged one by one, such as the words of a caption. A batch that is cut is seen chunk by chunk."""

    reads_batch = False

    @abstractmethod
    def forward(self, seen: Seen) -> Float[Tensor, ""]:
        """The sum over the items of these pairs. Compute it in fp32."""

    @abstractmethod
    def num_items(self, batch: Batch) -> int | Float[Tensor, ""]:
        """How many items a batch has. The term's value is the sum divided by the number of items of the global batch."""


class BatchTerm(LossTerm):
    """A term that compares the pairs of a batch with one another."""

    reads_batch = True

    @abstractmethod
    def forward(self, seen: Seen) -> Float[Tensor, "B ..."]:
        """What :meth:`loss` needs of each pair besides the features."""

    @abstractmethod
    def loss(
        self,
        rows: Float[Tensor, "B ..."],
        image_features: Float[Tensor, "B D"],
        text_features: Float[Tensor, "B D"],
        logit_scale: Float[Tensor, "..."],
        *,
        first: int,
    ) -> Float[Tensor, ""]:
        """This rank's loss; its average over ranks is the full batch's.

        Args:
            rows: what :meth:`forward` returned, of all pairs of this rank.
            image_features, text_features: of the same pairs, L2-normalised, in fp32.
            logit_scale: inverse temperature.
            first: position of row 0 in the global batch.
        """
