"""Captions as the items of a fine-tuning step."""

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
    """Every caption of an image is an item; the loss has one term, which counts tokens.

    Args:
        to_tokens: captions to tokens (N T), and how many of each row count, the mark at the start among them.
    """

    def __init__(self, to_tokens: Callable[[Sequence[str]], tuple[Tensor, Tensor]]):
        self._to_tokens = to_tokens

    def of(self, sample: Sample) -> Sequence[str]:
        """See :func:`captions_of`."""
        return captions_of(sample)

    def collate(self, items: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``tokens``, ``length``, and the number of tokens that are to be foretold."""
        tokens, length = self._to_tokens(items)
        return {"tokens": tokens, "length": length}, {"caption": int((length - 1).sum())}
