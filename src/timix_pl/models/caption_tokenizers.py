"""Convert captions to a decoder's tokens and back."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Int
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from timix_pl.core.errors import ModelError

NUM_BYTES = 512
"""The first tokens of CLIP's vocabulary: each byte, inside a word or at its end. The merges follow."""

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = NUM_BYTES + 2, 49408


class CaptionTokenizer(Protocol):
    """Converts captions to token ids below ``vocab_size`` and back. ``encode`` does not add ``start_id`` and ``end_id``."""

    vocab_size: int
    start_id: int
    end_id: int

    def encode(self, caption: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class ClipBpe:
    """CLIP's byte pair encoding with only its first merges. It can encode any text, with a few more tokens than the full vocabulary.

    CLIP's encoding converts to lower case and loses where spaces were. ``decode`` removes spaces where captions rarely have them: inside
    numbers, around hyphens, before punctuation.

    Args:
        vocab_size: from 514 (bytes, no merges) to 49408 (all merges).
    """

    def __init__(self, vocab_size: int):
        self.vocab_size, self.start_id, self.end_id = vocab_size, vocab_size - 2, vocab_size - 1
        self._bpe = SimpleTokenizer()
        self._bpe.bpe_ranks = {merge: rank for merge, rank in self._bpe.bpe_ranks.items() if rank < vocab_size - MIN_VOCAB_SIZE}
        self._bpe.cache.clear()  # it maps the text of CLIP's special tokens to these tokens; in a caption it is ordinary text

    def encode(self, caption: str) -> list[int]:
        return self._bpe.encode(caption)

    def decode(self, tokens: Sequence[int]) -> str:
        text = re.sub(r"(?<=\w)\s-\s(?=\w)", "-", self._bpe.decode(tokens).strip())
        return re.sub(r"(?<=\d)\s(?=\d)|\s(?=[.,!?;:'])", "", text)


class HubTokenizer:
    """The tokenizer of a pretrained decoder.

    Args:
        tokenizer: a tokenizer of transformers.
        name: of the decoder, for messages.
    Raises:
        ModelError: the tokenizer has no tokens for the start and the end of a text.
    """

    def __init__(self, tokenizer: Any, name: str):
        start = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if start is None or end is None:
            raise ModelError(
                f"`name={name}`: its tokenizer has no tokens for the start and the end of a text (bos or cls, eos or sep); "
                "choose another decoder"
            )
        self._tokenizer, self.vocab_size, self.start_id, self.end_id = tokenizer, len(tokenizer), start, end

    def encode(self, caption: str) -> list[int]:
        return self._tokenizer.encode(caption, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True).strip()


class CaptionsToTokens:
    """Converts captions to a batch of tokens: the start token, then at most ``max_length`` tokens of the caption and its end token.

    A truncated caption has no end token, so that the decoder does not learn to stop there.
    """

    def __init__(self, tokenizer: CaptionTokenizer, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, captions: Sequence[str]) -> tuple[Int[Tensor, "N T"], Int[Tensor, " N"]]:
        """The tokens, padded with end tokens, and the length of each row without padding."""
        start, end = self.tokenizer.start_id, self.tokenizer.end_id
        rows = [torch.tensor([start, *self.tokenizer.encode(caption), end][: self.max_length + 1]) for caption in captions]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end), torch.tensor([len(row) for row in rows])
