"""MixGen: images blended half and half, captions joined (Hao et al. 2023); the new pair is a positive of its own."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan
from timix_pl.mixing.mixup import blend


class MixGen:
    """Blends with the paper's constant lam. The joined captions need a text pass of their own."""

    needs_scores = False
    joins_captions = True

    def __init__(self, *, lam: float = 0.5):
        self.lam = lam

    def plan(
        self,
        rows: Int[Tensor, " M"],
        partners: Int[Tensor, " M"],
        device: torch.device,
        *,
        seed: int,
        step: int,
        first: int,
        logits: Tensor | None = None,
    ) -> MixPlan:
        """The same lam for every row. See :meth:`TiMix.plan`."""
        lam = torch.full((len(rows),), self.lam, device=device)
        return MixPlan(rows.to(device, non_blocking=True), partners.to(device, non_blocking=True), lam, None)

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The blended images."""
        return blend(images, plan)

    @staticmethod
    def join(captions: list[str], rows: Int[Tensor, " M"], partners: Int[Tensor, " M"]) -> list[str]:
        """Each row's caption followed by its partner's."""
        return [f"{captions[row]} {captions[partner]}" for row, partner in zip(rows.tolist(), partners.tolist(), strict=True)]
