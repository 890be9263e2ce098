"""CutMix: a random window of the partner, pasted at the same place (Yun et al. 2019), on the patch grid."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.randomness import uniform
from timix_pl.core.types import MixPlan, Windows
from timix_pl.mixing.windows import draw_side, paste


class CutMix:
    """Random windows with TiMix's range of sides, so that the two differ in the choice of the region alone; lam is the area kept."""

    needs_scores = False
    joins_captions = False

    def __init__(self, grid: tuple[int, int], *, min_side: float = 0.35, max_side: float = 0.75):
        self.grid, self.min_side, self.max_side = grid, min_side, max_side

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
        """A window for each row, drawn from (seed, step, the row's position in the global batch). See :meth:`TiMix.plan`."""
        side = draw_side(self.grid, self.min_side, self.max_side, seed=seed, step=step)
        free = torch.tensor([self.grid[0] - side + 1, self.grid[1] - side + 1])
        draws = torch.from_numpy(uniform(2 * (first + int(rows.max()) + 1), "cutmix", seed, step)).view(-1, 2)[first + rows]
        corner = (draws * free).long().to(device, non_blocking=True)
        lam = torch.full((len(rows),), 1 - side * side / (self.grid[0] * self.grid[1]), device=device)
        return MixPlan(rows.to(device, non_blocking=True), partners.to(device, non_blocking=True), lam, Windows(side, corner, corner))

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images; ``images`` is not written to."""
        assert plan.windows is not None
        return paste(images, plan.rows, plan.partners, plan.windows, self.grid)
