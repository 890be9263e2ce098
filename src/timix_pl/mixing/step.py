"""One step's mixing, decided before the model runs."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan


@runtime_checkable
class Mixer(Protocol):
    """What every strategy offers. See :class:`timix_pl.mixing.timix.TiMix` for the arguments."""

    needs_scores: bool
    joins_captions: bool

    def plan(
        self, rows: Tensor, partners: Tensor, device: torch.device, *, seed: int, step: int, first: int, logits: Tensor | None = None
    ) -> MixPlan: ...

    def apply(self, images: Tensor, plan: MixPlan) -> Tensor: ...


@dataclass(frozen=True)
class MixStep:
    """Which rows are mixed in this step, and how; what the model needs to plan and apply.

    Args:
        mixer: the strategy.
        compute: ``extra``, mixed images on top of the clean ones, or ``replace``, in place of them.
        rows: rows of the local batch to be mixed, on the CPU; ``partners`` likewise.
        joined_tokens: tokens of the joined captions, where the strategy joins them.
        planned: a plan made before, for the same rows: it is used again, and nothing is scored.
    """

    mixer: Mixer
    compute: str
    rows: Int[Tensor, " M"]
    partners: Int[Tensor, " M"]
    seed: int
    step: int
    first: int
    joined_tokens: Int[Tensor, "M T"] | None = None
    planned: MixPlan | None = None

    @property
    def needs_scores(self) -> bool:
        """Whether :meth:`plan` looks at scores."""
        return self.planned is None and self.mixer.needs_scores

    def plan(self, device: torch.device, logits: Float[Tensor, "B P"] | None = None) -> MixPlan:
        """The plan for this step."""
        if self.planned is not None:
            return self.planned
        return self.mixer.plan(self.rows, self.partners, device, seed=self.seed, step=self.step, first=self.first, logits=logits)

    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images; ``images`` is not written to."""
        return self.mixer.apply(images, plan)

    def apply_tokens(self, tokens: Float[Tensor, "B L C"], plan: MixPlan, grid: tuple[int, int]) -> Float[Tensor, "M L C"]:
        """The same on tokens of an image tower: the patches are an image of one pixel each, with C channels.

        A window leaves the tokens before the patches (the class token, if there is one) as they are; a blend takes them along.

        Args:
            grid: rows and columns of the patch grid.
        """
        prefix, patches = tokens.tensor_split((tokens.shape[1] - grid[0] * grid[1],), dim=1)
        mixed = self.mixer.apply(patches.mT.unflatten(2, grid), plan).flatten(2).mT
        prefix = prefix[plan.rows] if plan.windows is not None else self.mixer.apply(prefix.mT[:, :, None], plan)[:, :, 0].mT
        return torch.cat((prefix, mixed), 1)
