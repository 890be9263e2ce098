"""Patch dropout: in training, the image tower sees only a random share of the patches (FLIP, Li et al. 2023)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from timix_pl.core.randomness import bits


def num_kept_patches(num_patches: int, share: float) -> int:
    """The number of patches that are kept when ``share`` of them is dropped; at least 1."""
    return max(1, round((1 - share) * num_patches))


@dataclass(frozen=True)
class PatchDropout:
    """One step's patch dropout, a pure function of (seed, step, position in the global batch).

    Args:
        share: share of the patches that is dropped, from 0 to less than 1.
        seed: the run's seed.
        step: number of optimizer steps done.
        first: position of local row 0 in the global batch.
    """

    share: float
    seed: int
    step: int
    first: int

    def keep(self, num_rows: int, num_patches: int, kind: str) -> Int[Tensor, "B K"]:
        """The patches that each row keeps, in ascending order, on the CPU. Every row keeps the same number.

        Args:
            kind: identifies the draw: "clean" or "mixed", which are drawn independently.
        """
        num_kept = num_kept_patches(num_patches, self.share)
        draws = bits(num_rows * num_patches, "patch_dropout", kind, self.seed, self.step, start=self.first * num_patches)
        smallest = np.argpartition(draws.reshape(num_rows, num_patches), num_kept - 1, axis=1)[:, :num_kept]
        return torch.from_numpy(np.sort(smallest, axis=1))
