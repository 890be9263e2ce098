"""Which captions belong to each (mixed) image, with which share."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Pairs(NamedTuple):
    """The matrix W, images by captions. Each row is ``lam`` at the caption ``own``, 1 - ``lam`` at the caption ``partner``, else 0.

    ``own`` and ``partner`` are positions in the rank's own batch, which contains all partners.
    """

    own: Int[Tensor, " N"]
    partner: Int[Tensor, " N"]
    lam: Float[Tensor, " N"]

    @classmethod
    def clean(cls, images: Float[Tensor, "N D"]) -> "Pairs":
        """The pairs of clean images: each image has only its own caption."""
        own = torch.arange(len(images), device=images.device)
        return cls(own, own, images.new_ones(len(images)))

    def parts(self) -> tuple[tuple[Int[Tensor, " N"], Float[Tensor, " N"]], ...]:
        """W as the sum of two sparse matrices, each given by one caption per image and its share."""
        return (self.own, self.lam), (self.partner, 1 - self.lam)

    def mass(self, num_captions: int, first: int) -> Float[Tensor, " G"]:
        """The sum of each column of W. This rank's captions are those from position ``first``."""
        mass = self.lam.new_zeros(num_captions)
        for caption, share in self.parts():
            mass.index_add_(0, caption + first, share)
        return mass
