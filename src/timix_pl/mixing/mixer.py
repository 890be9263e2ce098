"""Base class of mixing strategies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.types import MixPlan, Windows


@dataclass(frozen=True, kw_only=True)
class MixRows:
    """The rows that one step mixes, and the inputs of its random draws.

    Args:
        rows: rows of the local batch to mix, on the CPU.
        partners: the partner of each row, on the CPU.
        seed: the run's seed.
        step: number of optimizer steps done.
        first: position of local row 0 in the global batch.
        device: device of the images and of the plan.
    """

    rows: Int[Tensor, " M"]
    partners: Int[Tensor, " M"]
    seed: int
    step: int
    first: int
    device: torch.device

    @property
    def positions(self) -> Int[Tensor, " M"]:
        """Positions of the rows in the global batch. Draws that depend on them are the same for any number of ranks."""
        return self.first + self.rows

    def plan(self, lam: Float[Tensor, " M"], windows: Windows | None = None) -> MixPlan:
        """The plan that mixes these rows. The copies to the device are not waited for."""
        rows, partners, lam = (x.to(self.device, non_blocking=True) for x in (self.rows, self.partners, lam))
        return MixPlan(rows, partners, lam, windows)


class Mixer(ABC):
    """A mixing strategy: plans how a step mixes images, and applies the plan.

    A subclass states its traits as class attributes. Keyword-only parameters of its constructor are options of the configuration.

    Args:
        grid: rows and columns of the patch grid.
    """

    needs_scores: ClassVar[bool] = False
    """:meth:`plan` needs the PTA head's scores."""
    joins_captions: ClassVar[bool] = False
    """A mixed image has one caption, joined from two. Otherwise it is a positive of both captions."""
    has_windows: ClassVar[bool] = False
    """Plans have windows. Otherwise whole images are blended."""

    def __init__(self, grid: tuple[int, int]):
        self.grid = grid

    @abstractmethod
    def plan(self, chosen: MixRows, scores: Float[Tensor, "B P"] | None = None) -> MixPlan:
        """Decide how the rows are mixed, as a pure function of the arguments and without gradients.

        Args:
            scores: PTA logits of every patch of every row under its own caption, if the strategy ``needs_scores``.
        """

    @abstractmethod
    def apply(self, images: Float[Tensor, "B c H W"], plan: MixPlan) -> Float[Tensor, "M c H W"]:
        """The mixed images. ``images`` is not modified. It may also be a grid of tokens, with one pixel per patch,
        so its sides may be odd numbers."""

    def join(self, captions: Sequence[str], rows: Int[Tensor, " M"], partners: Int[Tensor, " M"]) -> list[str]:
        """The captions of the mixed images, if the strategy ``joins_captions``: each row's caption, then its partner's."""
        return [f"{captions[row]} {captions[partner]}" for row, partner in zip(rows.tolist(), partners.tolist(), strict=True)]
