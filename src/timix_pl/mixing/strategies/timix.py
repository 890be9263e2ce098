"""TiMix: the region that a caption describes least is replaced by the region that the partner's caption describes best."""

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.choices import MIXERS
from timix_pl.core.types import MixPlan, Windows
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.windows import corners, draw_side, paste, side_range, window_sums


def z_normalise(logits: Float[Tensor, "M P"], eps: float = 1e-6) -> Float[Tensor, "M P"]:
    """Each row shifted to mean 0 and scaled to deviation 1; a constant row becomes 0."""
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()


@MIXERS.register("timix")
class TiMix(Mixer):
    """Text-aware mixing.

    Args:
        grid: rows and columns of the patch grid.
        min_side: smallest side of the window as a share of the grid's shorter side.
        max_side: largest side, also as a share.
        lam: ``area``, the share of the pixels kept, or ``relevance``, the share of the relevance mass kept.
    Raises:
        ShapeError: the grid is too small for a window.
    Source: Jiang et al. 2024, section 3.
    """

    needs_scores = True
    has_windows = True

    def __init__(self, grid: tuple[int, int], *, min_side: float = 0.35, max_side: float = 0.75, lam: str = "area"):
        super().__init__(grid)
        side_range(grid, min_side, max_side)
        self.min_side, self.max_side, self.lam = min_side, max_side, lam

    @torch.no_grad()
    def plan(self, chosen: MixRows, scores: Float[Tensor, "B P"] | None = None) -> MixPlan:
        """See :class:`Mixer`. Does not wait for the device."""
        assert scores is not None
        rows, partners = (x.to(chosen.device, non_blocking=True) for x in (chosen.rows, chosen.partners))
        height, width = self.grid
        side = draw_side(self.grid, self.min_side, self.max_side, seed=chosen.seed, step=chosen.step)
        scores = scores.float()
        sums = window_sums(z_normalise(scores).view(-1, height, width), side)
        columns = sums.shape[2]
        target = corners(sums[rows].flatten(1).argmin(1), columns)
        source = corners(sums[partners].flatten(1).argmax(1), columns)
        if self.lam == "area":
            lam = scores.new_full((len(rows),), 1 - side * side / (height * width))
        else:
            relevance = scores.sigmoid()
            mass = window_sums(relevance.view(-1, height, width), side)
            here = torch.arange(len(rows), device=scores.device)
            kept = relevance.sum(1)[rows] - mass[rows][here, target[:, 0], target[:, 1]]
            pasted = mass[partners][here, source[:, 0], source[:, 1]]
            lam = kept.clamp_min(0) / (kept.clamp_min(0) + pasted).clamp_min(torch.finfo(kept.dtype).tiny)
        return MixPlan(rows, partners, lam, Windows(side, target, source))

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """See :class:`Mixer`."""
        assert plan.windows is not None
        return paste(images, plan.rows, plan.partners, plan.windows, self.grid)
