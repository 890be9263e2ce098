"""Captions, as the items of a fine-tuning step."""

from collections.abc import Callable, Sequence

from torch import Tensor

from timix_pl.core.sample import Sample
from timix_pl.data.shards.reader import BadSampleError


def captions_of(sample: Sample) -> Sequence[str]:
    """All captions of a sample.

    Raises:
        BadSampleError: there are none.
    """
    if not sample.captions:
        raise BadSampleError("the sample has no caption")
    return sample.captions


class CaptionItems:
    """Items of :class:`timix_pl.data.sets.item_set.ItemSet` that are captions. The loss has one term, which counts tokens.

    Args:
        to_tokens: turns captions into tokens (N T) and the length of each row, start token included.
    """

    def __init__(self, to_tokens: Callable[[Sequence[str]], tuple[Tensor, Tensor]]):
        self._to_tokens = to_tokens

    def of(self, sample: Sample) -> Sequence[str]:
        """See :func:`captions_of`."""
        return captions_of(sample)

    def collate(self, items: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``tokens``, ``length``, and the number of tokens that the model predicts."""
        tokens, length = self._to_tokens(items)
        return {"tokens": tokens, "length": length}, {"caption": int((length - 1).sum())}
