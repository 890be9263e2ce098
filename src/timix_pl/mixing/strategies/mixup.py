"""Mixup (Zhang et al. 2018): the whole image is blended with the partner's."""

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import MIXERS
from timix_pl.core.randomness import beta as draw_beta
from timix_pl.core.types import MixPlan
from timix_pl.mixing.mixer import Mixer, MixRows


def blend(images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
    """lam times the row's image plus 1 - lam times its partner's; ``images`` is not modified."""
    return torch.lerp(images[plan.partners], images[plan.rows], plan.lam.to(images.dtype)[:, None, None, None])


@MIXERS.register("mixup")
class Mixup(Mixer):
    """Blends with lam from Beta(beta, beta), one for each row.

    Args:
        grid: not used.
        beta: concentration of the distribution that lam is drawn from.
    """

    def __init__(self, grid: tuple[int, int], *, beta: float = 1.0):
        super().__init__(grid)
        self.beta = beta

    def plan(self, chosen: MixRows, scores: Tensor | None = None) -> MixPlan:
        """lam for each row, drawn from (seed, step, the row's position in the global batch)."""
        draws = draw_beta(int(chosen.positions.max()) + 1, self.beta, "mixup", chosen.seed, chosen.step)
        return chosen.plan(torch.from_numpy(draws)[chosen.positions].float())

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The blended images."""
        return blend(images, plan)
