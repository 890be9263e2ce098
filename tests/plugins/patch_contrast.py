"""Plugin: a term that compares the mean patch of each image with all captions."""

import torch.nn.functional as F
from torch import nn

from timix_pl.core.choices import LOSS_TERMS
from timix_pl.core.distributed import gather
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.term import BatchTerm


@LOSS_TERMS.register("patch_contrast")
class PatchContrast(BatchTerm):
    """InfoNCE of mean patches and captions."""

    def __init__(self, encoder, *, weight: float = 0.5):
        super().__init__(encoder, weight=weight)
        dim = encoder.encode_text(encoder.tokenizer(["a"]).to(encoder.weights_like.device)).shape[1]
        self.project = nn.Linear(encoder.image.patch_dim, dim)

    def forward(self, seen):
        return F.normalize(self.project(seen.patch_features.mean(1)), dim=-1)

    def loss(self, rows, image_features, text_features, logit_scale, *, first):
        return info_nce(rows.float(), gather(text_features), logit_scale, first=first)
