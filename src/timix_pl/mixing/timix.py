"""TiMix: the region that a caption describes least gives way to the region that the partner's caption describes best."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan, Windows
from timix_pl.mixing.windows import corners, draw_side, paste, window_sums


def z_normalise(logits: Float[Tensor, "M P"], eps: float = 1e-6) -> Float[Tensor, "M P"]:
    """Each row shifted to mean 0 and scaled to deviation 1; a constant row becomes 0."""
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()


class TiMix:
    """Text-aware mixing. Source: Jiang et al. 2024, section 3.

    Args:
        grid: rows and columns of the patch grid.
        min_side: smallest side of the window as a share of the grid's shorter side.
        max_side: largest side, likewise.
        lam: ``area``, the share of the pixels kept, or ``relevance``, the share of the relevance mass kept.
    """

    needs_scores = True
    joins_captions = False

    def __init__(self, grid: tuple[int, int], *, min_side: float = 0.35, max_side: float = 0.75, lam: str = "area"):
        self.grid, self.min_side, self.max_side, self.lam = grid, min_side, max_side, lam

    @torch.no_grad()
    def plan(
        self,
        rows: Int[Tensor, " M"],
        partners: Int[Tensor, " M"],
        device: torch.device,
        *,
        seed: int,
        step: int,
        first: int,
        logits: Float[Tensor, "B P"] | None = None,
    ) -> MixPlan:
        """Decide windows and lam; nothing here waits for the device.

        Args:
            rows: rows of the local batch to be mixed, on the CPU.
            partners: the row that each takes its pasted region from, on the CPU.
            device: where the images are and the plan goes.
            seed: the run's seed.
            step: optimizer steps done.
            first: position of local row 0 in the global batch.
            logits: PTA logits of every patch of every row under its own caption.
        """
        assert logits is not None
        rows, partners = rows.to(device, non_blocking=True), partners.to(device, non_blocking=True)
        height, width = self.grid
        side = draw_side(self.grid, self.min_side, self.max_side, seed=seed, step=step)
        logits = logits.float()
        sums = window_sums(z_normalise(logits).view(-1, height, width), side)
        columns = sums.shape[2]
        target = corners(sums[rows].flatten(1).argmin(1), columns)
        source = corners(sums[partners].flatten(1).argmax(1), columns)
        if self.lam == "area":
            lam = logits.new_full((len(rows),), 1 - side * side / (height * width))
        else:
            relevance = logits.sigmoid()
            mass = window_sums(relevance.view(-1, height, width), side)
            here = torch.arange(len(rows), device=logits.device)
            kept = relevance.sum(1)[rows] - mass[rows][here, target[:, 0], target[:, 1]]
            pasted = mass[partners][here, source[:, 0], source[:, 1]]
            lam = kept.clamp_min(0) / (kept.clamp_min(0) + pasted).clamp_min(torch.finfo(kept.dtype).tiny)
        return MixPlan(rows, partners, lam, Windows(side, target, source))

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images; ``images`` is not written to."""
        assert plan.windows is not None
        return paste(images, plan.rows, plan.partners, plan.windows, self.grid)
