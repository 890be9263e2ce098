"""MixGen (Hao et al. 2023): images are blended half and half, captions are joined, and each result is a new positive pair."""

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import MIXERS
from timix_pl.core.types import MixPlan
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.strategies.mixup import blend


@MIXERS.register("mixgen")
class MixGen(Mixer):
    """Blends with a constant lam, by default that of the paper. The joined captions need another pass of the text tower.

    Args:
        grid: not used.
        own_share: lam, the share of the row's own image.
    """

    joins_captions = True

    def __init__(self, grid: tuple[int, int], *, own_share: float = 0.5):
        super().__init__(grid)
        self.own_share = own_share

    def plan(self, chosen: MixRows, scores: Tensor | None = None) -> MixPlan:
        """The same lam for every row."""
        return chosen.plan(torch.full((len(chosen.rows),), self.own_share, device=chosen.device))

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The blended images."""
        return blend(images, plan)
