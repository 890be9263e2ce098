"""The mixing of one step, as an argument of the model's forward pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan
from timix_pl.mixing.mixer import Mixer, MixRows


@dataclass(frozen=True, kw_only=True)
class MixStep:
    """What the model needs to plan and apply one step's mixing.

    Args:
        mixer: the strategy.
        compute: ``extra``: mixed images in addition to the clean ones; ``replace``: instead of them.
        chosen: which rows are mixed.
        joined_tokens: tokens of the joined captions, if the strategy joins them.
        planned: an earlier plan for the same rows, to use again without scores.
    """

    mixer: Mixer
    compute: str
    chosen: MixRows
    joined_tokens: Int[Tensor, "M T"] | None = None
    planned: MixPlan | None = None

    @property
    def rows(self) -> Int[Tensor, " M"]:
        """Rows of the local batch to mix, on the CPU."""
        return self.chosen.rows

    @property
    def needs_scores(self) -> bool:
        """Whether :meth:`plan` uses scores."""
        return self.planned is None and self.mixer.needs_scores

    def plan(self, scores: Float[Tensor, "B P"] | None = None) -> MixPlan:
        """The plan for this step."""
        return self.mixer.plan(self.chosen, scores) if self.planned is None else self.planned

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images; ``images`` is not modified."""
        return self.mixer.apply(images, plan)

    def apply_tokens(self, tokens: Float[Tensor, "B L C"], plan: MixPlan, grid: tuple[int, int]) -> Float[Tensor, "M L C"]:
        """Mix the tokens of an image tower: patch tokens are treated as an image with one pixel per patch and C channels.

        Tokens before the patches (such as the class token) stay the row's own with windows, and are blended with blends.

        Args:
            grid: rows and columns of the patch grid.
        """
        prefix, patches = tokens.tensor_split((tokens.shape[1] - grid[0] * grid[1],), dim=1)
        mixed = self.mixer.apply(patches.mT.unflatten(2, grid), plan).flatten(2).mT
        if self.mixer.has_windows:
            return torch.cat((prefix[plan.rows], mixed), 1)
        return torch.cat((self.mixer.apply(prefix.mT[:, :, None], plan)[:, :, 0].mT, mixed), 1)
