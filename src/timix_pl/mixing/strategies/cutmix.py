"""CutMix (Yun et al. 2019) on the patch grid: a random window of the partner, pasted at the same place."""

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import MIXERS
from timix_pl.core.randomness import uniform
from timix_pl.core.types import MixPlan, Windows
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.windows import draw_side, paste, side_range


@MIXERS.register("cutmix")
class CutMix(Mixer):
    """Pastes random windows. Their sides have the same range as TiMix's, so the two differ only in the choice of the region.

    lam is the share of the area that is kept.

    Args:
        grid, min_side, max_side: see :class:`timix_pl.mixing.strategies.timix.TiMix`.
    Raises:
        ShapeError: the grid is too small for a window.
    """

    has_windows = True

    def __init__(self, grid: tuple[int, int], *, min_side: float = 0.35, max_side: float = 0.75):
        super().__init__(grid)
        side_range(grid, min_side, max_side)
        self.min_side, self.max_side = min_side, max_side

    def plan(self, chosen: MixRows, scores: Tensor | None = None) -> MixPlan:
        """A window for each row, drawn from (seed, step, the row's position in the global batch)."""
        side = draw_side(self.grid, self.min_side, self.max_side, seed=chosen.seed, step=chosen.step)
        free = torch.tensor([self.grid[0] - side + 1, self.grid[1] - side + 1])
        draws = uniform(2 * (int(chosen.positions.max()) + 1), "cutmix", chosen.seed, chosen.step)
        corner = (torch.from_numpy(draws).view(-1, 2)[chosen.positions] * free).long().to(chosen.device, non_blocking=True)
        lam = torch.full((len(chosen.rows),), 1 - side * side / (self.grid[0] * self.grid[1]), device=chosen.device)
        return chosen.plan(lam, Windows(side, corner, corner))

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """See :class:`Mixer`."""
        assert plan.windows is not None
        return paste(images, plan.rows, plan.partners, plan.windows, self.grid)
