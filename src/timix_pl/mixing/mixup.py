"""Mixup: the whole image blended with the partner's (Zhang et al. 2018)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.randomness import beta
from timix_pl.core.types import MixPlan


def blend(images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
    """lam times the row's image plus 1 - lam times its partner's; ``images`` is not written to."""
    return torch.lerp(images[plan.partners], images[plan.rows], plan.lam.to(images.dtype)[:, None, None, None])


class Mixup:
    """Blends with lam from Beta(beta, beta), one for each row."""

    needs_scores = False
    joins_captions = False

    def __init__(self, *, beta: float = 1.0):
        self.beta = beta

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
        """lam for each row, drawn from (seed, step, the row's position in the global batch). See :meth:`TiMix.plan`."""
        lam = torch.from_numpy(beta(first + int(rows.max()) + 1, self.beta, "mixup", seed, step))[first + rows].float()
        rows, partners, lam = (x.to(device, non_blocking=True) for x in (rows, partners, lam))
        return MixPlan(rows, partners, lam, None)

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The blended images."""
        return blend(images, plan)
