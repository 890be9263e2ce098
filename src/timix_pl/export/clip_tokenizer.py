"""Convert open_clip's CLIP tokenizer to the formats of transformers and tokenizers."""

from pathlib import Path
from typing import Any

import open_clip
from transformers import CLIPTokenizer

from timix_pl.export.writing import write_json

_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
_VOCABULARY_SIZE = 49408


def is_clip_tokenizer(tokenizer: Any) -> bool:
    """Whether ``tokenizer`` is CLIP's own, with its vocabulary, lower case and truncation."""
    return (
        isinstance(tokenizer, open_clip.SimpleTokenizer)
        and tokenizer.vocab_size == _VOCABULARY_SIZE
        and tokenizer.clean_fn is open_clip.tokenizer.get_clean_fn("lower")
        and tokenizer.reduction_fn is None
    )


def clip_tokenizer(tokenizer: open_clip.SimpleTokenizer) -> CLIPTokenizer:
    """The same tokenizer for transformers. Token ids equal those of open_clip up to the end token.

    After it, transformers pads with the end token and open_clip with 0. This changes no feature, because attention is causal.
    """
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    vocabulary = {_SPECIAL.get(token, token): number for token, number in tokenizer.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=tokenizer.context_length)


def write_clip_tokenizer(tokenizer: open_clip.SimpleTokenizer, folder: Path) -> None:
    """``tokenizer.json`` and, for older versions of transformers, ``vocab.json`` and ``merges.txt``."""
    made = clip_tokenizer(tokenizer)
    made.save_pretrained(folder)
    write_json(made.get_vocab(), folder / "vocab.json")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__))]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
