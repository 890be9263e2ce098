"""Plugin: CoCa's captioning term (Yu et al. 2022). A small decoder reads the patches and writes the caption, token by token."""

import torch
import torch.nn.functional as F
from torch import nn

from timix_pl.core.choices import LOSS_TERMS
from timix_pl.losses.term import ChunkTerm

PADDING = 0


@LOSS_TERMS.register("captioning")
class Captioning(ChunkTerm):
    """Mean cross-entropy of the next token.

    Args:
        dim: channels of the decoder.
        layers: its transformer layers.
        heads: attention heads of each layer.
    """

    def __init__(self, encoder, *, weight: float = 2.0, dim: int = 32, layers: int = 1, heads: int = 2):
        super().__init__(encoder, weight=weight)
        vocab_size, length = encoder.text.tower.vocab_size, encoder.tokenizer(["a"]).shape[1]
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(length, dim)
        self.patches = nn.Linear(encoder.image.patch_dim, dim)
        layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.decoder, self.next_token = nn.TransformerDecoder(layer, layers), nn.Linear(dim, vocab_size)

    def forward(self, seen):
        given, wanted = seen.tokens[:, :-1], seen.tokens[:, 1:]
        x = self.tokens(given) + self.positions.weight[: given.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(given.shape[1], device=x.device, dtype=x.dtype)
        logits = self.next_token(self.decoder(x, self.patches(seen.patch_features), tgt_mask=mask, tgt_is_causal=True))
        return F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=PADDING, reduction="sum")

    def num_items(self, batch):
        return (batch.tokens[:, 1:] != PADDING).sum(dtype=torch.float32)
