"""A dual encoder's image tower and a decoder that writes captions."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from timix_pl.core.types import ItemBatch
from timix_pl.models.caption_decoder import CaptionDecoder
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import FineTuned


class Captioner(FineTuned):
    """Learns captions word by word, each word from the image and the words before it.

    Args:
        encoder: the towers; the image tower alone is read.
        decoder: the head.
        label_smoothing: share of each target that is spread over the vocabulary.
        generation: how captions are searched, see :meth:`timix_pl.models.caption_decoder.CaptionDecoder.generate`.
        options: see :class:`timix_pl.models.fine_tuned.FineTuned`.
    """

    head: CaptionDecoder

    def __init__(
        self, encoder: DualEncoder, decoder: CaptionDecoder, *, label_smoothing: float, generation: dict[str, Any], **options: Any
    ):
        super().__init__(encoder, decoder, reads=("image",), **options)
        self.label_smoothing, self.generation = label_smoothing, generation

    def sums(self, batch: ItemBatch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the captions' tokens, in nats, summed over all tokens behind the first mark.

        ``items`` holds ``tokens`` and ``length`` of :class:`timix_pl.models.caption_tokenizers.CaptionsToTokens`.
        """
        tokens, length = batch.items["tokens"], batch.items["length"]
        said = torch.arange(1, tokens.shape[1], device=length.device) < length[:, None]
        logits = self.head(self.patch_features(batch.images), batch.image_index, tokens[:, :-1], said)
        return {"caption": F.cross_entropy(logits, tokens[:, 1:][said], label_smoothing=self.label_smoothing, reduction="sum")}

    def caption(self, images: UInt8[Tensor, "B 3 H W"]) -> list[str]:
        """A caption for each image, found by beam search. In training mode dropout would disturb it."""
        return self.head.generate(self.patch_features(images), **self.generation)

    def checkpoint_gradients(self) -> None:
        """Also in the decoder."""
        super().checkpoint_gradients()
        self.head.decoder.gradient_checkpointing_enable({"use_reentrant": False})
