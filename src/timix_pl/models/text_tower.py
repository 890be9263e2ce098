"""One interface to text towers of open_clip and Hugging Face."""

from typing import Any

import open_clip
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class TextTower(nn.Module):
    """A text tower of open_clip or Hugging Face with a separate projection, so that the pooled feature before it can be read."""

    def __init__(self, tower: Any):
        super().__init__()
        name = "text_projection" if hasattr(tower, "text_projection") else "proj"
        projection = getattr(tower, name)
        setattr(tower, name, None if name == "text_projection" else nn.Identity())
        self.tower: Any = tower
        self.tower.output_tokens = False
        self.projection = projection if projection is not None else nn.Identity()

    def forward(self, tokens: Int[Tensor, "B T"], *, each_token: bool = False) -> Any:
        """Text features (B D, not normalised) and the pooled feature before the projection (B E).

        Args:
            each_token: return the features of each token (B T E) and which tokens are padding (B T, bool) instead. Columns at the end that
                are all padding may be missing.
        """
        if each_token:
            return self._each_token(tokens)
        pooled = self.tower(tokens)
        features = self.projection(pooled) if isinstance(self.projection, nn.Module) else pooled @ self.projection
        return features, pooled

    def _each_token(self, tokens: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Features of each token. If the tower pools a class token, T is one less."""
        own = isinstance(self.tower, open_clip.transformer.TextTransformer)  # its attention mask needs its full context length
        pad_id = self.tower.pad_id if own else self.tower.config.pad_token_id
        whole = F.pad(tokens, (0, self.tower.context_length - tokens.shape[1]), value=pad_id) if own else tokens
        self.tower.output_tokens = True
        try:
            features = self.tower(whole)[1][:, : tokens.shape[1]]
        finally:
            self.tower.output_tokens = False
        follows = (
            (tokens != pad_id).flip(1).cummax(1).values.flip(1)
        )  # a token that is not padding follows; "!" has the same id as CLIP's padding, so ids cannot decide
        return features, ~follows[:, -features.shape[1] :]

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks; empty for Hugging Face towers of an unknown structure."""
        transformer = self.tower.transformer
        for layers in ("resblocks", "layer", "block", "layers"):  # of open_clip; of encoders like BERT, T5, and others
            found = getattr(transformer, layers, None) or getattr(getattr(transformer, "encoder", None), layers, None)
            if found is not None:
                return list(found)
        return []

    def checkpoint_gradients(self) -> None:
        """See :meth:`ImageTower.checkpoint_gradients`."""
        if isinstance(self.tower.transformer, open_clip.transformer.Transformer):
            self.tower.set_grad_checkpointing(True)
        else:
            self.tower.transformer.gradient_checkpointing_enable({"use_reentrant": False})
