"""Base classes of further loss terms, which are added to the contrastive loss."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from timix_pl.core.types import Batch, Seen


class LossTerm(nn.Module, ABC):
    """A loss term that is added to the contrastive loss. It may have parameters, which are trained and stored in checkpoints.

    A subclass is either a :class:`ChunkTerm` or a :class:`BatchTerm`. Keyword-only parameters of its constructor are options of the
    configuration.

    Args:
        encoder: the dual encoder, to read sizes from. It must not become a submodule.
        weight: factor on the term in the total loss.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""
    reads_batch: ClassVar[bool]
    """Whether the term needs all pairs of the rank's batch at once. Otherwise it gets them chunk by chunk."""

    def __init__(self, encoder: Any, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight


class ChunkTerm(LossTerm):
    """A term that is a mean over independent items, such as the words of captions. If the batch is split, it gets one chunk at a time."""

    reads_batch = False

    @abstractmethod
    def forward(self, seen: Seen) -> Float[Tensor, ""]:
        """The sum over the items of these pairs. Compute it in fp32."""

    @abstractmethod
    def num_items(self, batch: Batch) -> int | Float[Tensor, ""]:
        """The number of items of a batch. The term's value is the sum over items divided by the number of items of the global batch."""


class BatchTerm(LossTerm):
    """A term that compares the pairs of a batch with one another."""

    reads_batch = True

    @abstractmethod
    def forward(self, seen: Seen) -> Float[Tensor, "B ..."]:
        """What :meth:`loss` needs for each pair besides the features. If it needs nothing, return ``seen.image_features[:, :0]``."""

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
        """This rank's loss; its average over ranks is the loss of the full batch.

        If it is not a mean over pairs, such as the log of a mean, gather the features of all ranks first
        (:func:`timix_pl.core.distributed.gather`).

        It must use none of the term's parameters, because they are whole, and get a gradient in each chunk, only in the forward pass of
        the model. :meth:`forward` is part of that: what it returns may depend on them.

        Args:
            rows: the results of :meth:`forward` for all pairs of this rank.
            image_features, text_features: of the same pairs, L2-normalised, in fp32.
            logit_scale: inverse temperature.
            first: position of row 0 in the global batch.
        """
