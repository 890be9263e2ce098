"""The mixing of one step, as an argument of the model's forward pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan, Mosaics
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.mosaic import put_together
from timix_pl.mixing.windows import in_windows


@dataclass(frozen=True, kw_only=True)
class MixStep:
    """What the model needs to plan and apply one step's mixing.

    Args:
        mixer: the strategy.
        compute: ``extra``: mixed images in addition to the clean ones; ``replace``: instead of them.
        chosen: which rows are mixed.
        joined_tokens: tokens of the joined captions, if the strategy joins them.
        mosaics: the mixed images that are mosaics, on the CPU.
        teaches: mixed images also teach the PTA head.
        planned: an earlier plan for the same rows, to use again without scores.
    """

    mixer: Mixer
    compute: str
    chosen: MixRows
    joined_tokens: Int[Tensor, "M T"] | None = None
    mosaics: Mosaics | None = None
    teaches: bool = False
    planned: MixPlan | None = None

    @property
    def rows(self) -> Int[Tensor, " M"]:
        """Rows of the local batch to mix, on the CPU."""
        return self.chosen.rows

    @property
    def needs_scores(self) -> bool:
        """Whether :meth:`plan` uses scores."""
        return self.planned is None and self.mixer.needs_scores and not self._only_mosaics

    def plan(self, scores: Float[Tensor, "B P"] | None = None) -> MixPlan:
        """The plan for this step."""
        if self.planned is not None:
            return self.planned
        if self.mosaics is None:
            return self.mixer.plan(self.chosen, scores)
        which, inside = (x.to(self.chosen.device, non_blocking=True) for x in self.mosaics)
        kept = 1 - inside.float().mean(1)
        plan = self.chosen.plan(kept) if self._only_mosaics else self.mixer.plan(self.chosen, scores)
        return plan._replace(lam=plan.lam.index_copy(0, which, kept.to(plan.lam.dtype)), mosaics=Mosaics(which, inside))

    @property
    def _only_mosaics(self) -> bool:
        return self.mosaics is not None and len(self.mosaics.which) == len(self.rows)

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images; ``images`` is not modified."""
        if plan.mosaics is None:
            return self.mixer.apply(images, plan)
        which, inside = plan.mosaics
        mosaics = put_together(images, plan.rows[which], plan.partners[which], inside, self.mixer.grid)
        return mosaics if self._only_mosaics else self.mixer.apply(images, plan).index_copy(0, which, mosaics)

    def shows_partner(self, plan: MixPlan) -> Bool[Tensor, "M P"]:
        """The patches of the mixed images that show the partner instead of the row's own image."""
        if plan.windows is None:
            assert plan.mosaics is not None
            return plan.mosaics.inside
        shown = in_windows(plan.windows, self.mixer.grid)
        return shown if plan.mosaics is None else shown.index_copy(0, plan.mosaics.which, plan.mosaics.inside)

    def apply_tokens(self, tokens: Float[Tensor, "B L C"], plan: MixPlan, grid: tuple[int, int]) -> Float[Tensor, "M L C"]:
        """Mix the tokens of an image tower: patch tokens are treated as an image with one pixel per patch and C channels.

        Tokens before the patches (such as the class token) stay the row's own with windows, and are blended with blends.

        Args:
            grid: rows and columns of the patch grid.
        """
        prefix, patches = tokens.tensor_split((tokens.shape[1] - grid[0] * grid[1],), dim=1)
        mixed = self.apply(patches.mT.unflatten(2, grid), plan).flatten(2).mT
        if self.mixer.has_windows:
            return torch.cat((prefix[plan.rows], mixed), 1)
        return torch.cat((self.mixer.apply(prefix.mT[:, :, None], plan)[:, :, 0].mT, mixed), 1)
