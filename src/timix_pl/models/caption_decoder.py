"""A language model of transformers that writes captions and attends to an image's patches."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.utils import logging as transformers_logging

from timix_pl.core.errors import ModelError
from timix_pl.models.caption_tokenizers import CaptionTokenizer, ClipBpe, HubTokenizer

_MAX_REASON = 400
"""Longest part, in characters, of another library's message that is shown."""


class CaptionDecoder(nn.Module):
    """A causal language model of transformers whose cross-attention reads projected patch features.

    Args:
        decoder: a causal language model with cross-attention.
        tokenizer: of the decoder.
        patch_dim: channels of the patch features.
        max_length: largest number of tokens of a caption, including the end token.
        name: of the decoder, for messages.
    Raises:
        ModelError: the decoder cannot attend to an image, has fewer positions than ``max_length``, or fewer tokens than the tokenizer.
    """

    def __init__(self, decoder: Any, tokenizer: CaptionTokenizer, patch_dim: int, max_length: int, name: str = "null"):
        super().__init__()
        _check(decoder, tokenizer, max_length, name)
        self.decoder, self.tokenizer, self.max_length = decoder, tokenizer, max_length
        self.project = nn.Sequential(nn.LayerNorm(patch_dim), nn.Linear(patch_dim, decoder.config.hidden_size))

    def forward(
        self, patch_features: Float[Tensor, "B P C"], image_index: Int[Tensor, " N"], tokens: Int[Tensor, "N T"], asked: Bool[Tensor, "N T"]
    ) -> Float[Tensor, "K V"]:
        """Logits, in fp32, of the token after each of the K tokens where ``asked`` is True.

        Args:
            image_index: the image of each caption.
        """
        states = self.project(patch_features)[image_index]
        scores = self.decoder.get_output_embeddings()
        # The hook drops padding before the largest layer, which scores the whole vocabulary.
        hook = scores.register_forward_pre_hook(lambda module, inputs: (inputs[0][asked],))
        try:
            return self.decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=False).logits.float()
        finally:
            hook.remove()

    def generate(self, patch_features: Float[Tensor, "B P C"], **options: Any) -> list[str]:
        """A caption for each image.

        Args:
            options: options of transformers' ``GenerationConfig``, such as ``num_beams``, ``length_penalty`` and ``no_repeat_ngram_size``.
        """
        start, end = self.tokenizer.start_id, self.tokenizer.end_id
        states = self.project(patch_features)
        starts = torch.full((len(states), 1), start, device=states.device)
        written = self.decoder.generate(
            starts,
            attention_mask=torch.ones_like(starts),
            encoder_hidden_states=states,
            past_key_values=EncoderDecoderCache(DynamicCache(config=self.decoder.config), DynamicCache(config=self.decoder.config)),
            generation_config=GenerationConfig(
                max_new_tokens=self.max_length, bos_token_id=start, eos_token_id=end, pad_token_id=end, do_sample=False, **options
            ),
        )
        return [self.tokenizer.decode(row[: row.index(end)] if end in row else row) for row in written[:, 1:].tolist()]


def small_decoder(
    patch_dim: int, *, vocab_size: int, dim: int, layers: int, heads: int, dropout: float, max_length: int, device: str = "cpu"
) -> CaptionDecoder:
    """A GPT-2 of any size with random weights and CLIP's byte pair encoding.

    Args:
        vocab_size: see :class:`timix_pl.models.caption_tokenizers.ClipBpe`.
        dim: channels, a multiple of ``heads``.
    """
    tokenizer = ClipBpe(vocab_size)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length,
        n_embd=dim,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=tokenizer.start_id,
        eos_token_id=tokenizer.end_id,
        add_cross_attention=True,
    )
    with torch.device(device):
        return CaptionDecoder(GPT2LMHeadModel(config), tokenizer, patch_dim, max_length)


def pretrained_decoder(patch_dim: int, name: str, *, max_length: int, device: str = "cpu") -> CaptionDecoder:
    """A pretrained language model with its tokenizer. If it has no cross-attention, that is added with random weights.

    Args:
        name: on the Hugging Face hub, or a folder.
        device: ``meta`` loads only the configuration.
    Raises:
        ModelError: the model cannot be loaded, or cannot attend to an image.
    """
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            config = AutoConfig.from_pretrained(name, is_decoder=True, add_cross_attention=True)
            if device == "meta":
                with torch.device(device):
                    decoder = AutoModelForCausalLM.from_config(config)
            else:
                decoder = AutoModelForCausalLM.from_pretrained(name, config=config, dtype=torch.float32)
    except Exception as error:  # transformers and huggingface_hub raise many kinds
        reason = " ".join(f"{error or type(error).__name__}".split())[:_MAX_REASON]
        raise ModelError(f"`name={name}`: cannot be loaded: {reason}") from error
    with torch.device(device):
        return CaptionDecoder(decoder, HubTokenizer(tokenizer, name), patch_dim, max_length, name)


def _check(decoder: Any, tokenizer: CaptionTokenizer, max_length: int, name: str) -> None:
    config, kind = decoder.config, type(decoder).__name__
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise ModelError(f"`name={name}`: {kind} cannot attend to an image; choose one with cross-attention, such as GPT-2 or BERT")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ModelError(f"`max_length={max_length}`: `name={name}` has {positions} positions; set it to that at most")
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(
            f"`name={name}`: its tokenizer knows {tokenizer.vocab_size} tokens, but {kind} has {config.vocab_size}; "
            "they do not belong together"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers, which warns that the weights of the cross-attention are new. That is intended here."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
