"""The patch-text alignment (PTA) head, which scores how well a text describes each patch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PatchTextAlignment(nn.Module):
    """One logit per patch from patch features and a text.

    Patch features go through LayerNorm, Linear and GELU. Half of the channels stay local, half are averaged over the patches. Both are
    concatenated with the text feature, and an MLP gives the logit. The MLP's first layer is applied to the parts separately, and the
    results are added. This equals applying it to the concatenation, but computes the local part once per image and the rest once per text.

    Args:
        patch_dim: channels of the patch features.
        text_dim: width of the text tower's pooled feature before projection.
        hidden_dim: channels inside the head; even.
    Source: Jiang et al. 2024, section 3.2; the local and global halves follow DynamicViT (Rao et al. 2021).
    """

    def __init__(self, patch_dim: int, text_dim: int, hidden_dim: int):
        super().__init__()
        self.input = nn.Sequential(nn.LayerNorm(patch_dim), nn.Linear(patch_dim, hidden_dim), nn.GELU())
        self.local = nn.Linear(hidden_dim // 2, hidden_dim, bias=False)
        self.context = nn.Linear(hidden_dim - hidden_dim // 2 + text_dim, hidden_dim)
        self.output = nn.Sequential(nn.GELU(), nn.Linear(hidden_dim, hidden_dim // 2), nn.GELU(), nn.Linear(hidden_dim // 2, 1))

    def forward(
        self, patch_features: Float[Tensor, "N P C"], text: Float[Tensor, "R E"], image_index: Int[Tensor, " R"] | None = None
    ) -> Float[Tensor, "R P"]:
        """Logits of every patch of image ``image_index[r]`` for text r. None: image r belongs to text r."""
        local, pooled = self.input(patch_features).tensor_split((self.local.in_features,), dim=2)
        local, pooled = self.local(local), pooled.mean(1)
        if image_index is not None:
            local, pooled = local[image_index], pooled[image_index]
        context = self.context(torch.cat((pooled, text), 1))
        return self.output(local + context[:, None])[:, :, 0]
