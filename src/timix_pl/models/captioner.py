"""Captioning model: a dual encoder's image tower and a caption decoder."""

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
    """Predicts each token of a caption from the image and the tokens before it.

    Args:
        encoder: the towers; only the image tower is used.
        decoder: the head.
        label_smoothing: share of each target that is spread over the vocabulary.
        generation: options of :meth:`timix_pl.models.caption_decoder.CaptionDecoder.generate`.
        options: see :class:`timix_pl.models.fine_tuned.FineTuned`.
    """

    head: CaptionDecoder

    def __init__(
        self, encoder: DualEncoder, decoder: CaptionDecoder, *, label_smoothing: float, generation: dict[str, Any], **options: Any
    ):
        super().__init__(encoder, decoder, reads=("image",), **options)
        self.label_smoothing, self.generation = label_smoothing, generation

    def sums(self, batch: ItemBatch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the captions' tokens, in nats, summed over all tokens after the start token.

        ``batch.items`` has ``tokens`` and ``length`` of :class:`timix_pl.models.caption_tokenizers.CaptionsToTokens`.
        """
        tokens, length = batch.items["tokens"], batch.items["length"]
        said = torch.arange(1, tokens.shape[1], device=length.device) < length[:, None]
        logits = self.head(self.patch_features(batch.images), batch.image_index, tokens[:, :-1], said)
        return {"caption": F.cross_entropy(logits, tokens[:, 1:][said], label_smoothing=self.label_smoothing, reduction="sum")}

    def caption(self, images: UInt8[Tensor, "B 3 H W"]) -> list[str]:
        """A caption for each image, found by beam search. Call it in evaluation mode, without dropout."""
        return self.head.generate(self.patch_features(images), **self.generation)

    def checkpoint_gradients(self) -> None:
        """See :meth:`DualEncoder.checkpoint_gradients`; applies to the decoder too."""
        super().checkpoint_gradients()
        self.head.decoder.gradient_checkpointing_enable({"use_reentrant": False})
