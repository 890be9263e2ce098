"""Which captions each image contains, and how much of each."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Pairs(NamedTuple):
    """The matrix W, images by captions, row by row: ``lam`` at the caption ``own`` and 1 - ``lam`` at the caption ``partner``.

    Captions are counted within the rank's own batch, where all partners are too.
    """

    own: Int[Tensor, " N"]
    partner: Int[Tensor, " N"]
    lam: Float[Tensor, " N"]

    @classmethod
    def clean(cls, images: Float[Tensor, "N D"]) -> "Pairs":
        """Each image is wholly its own."""
        own = torch.arange(len(images), device=images.device)
        return cls(own, own, images.new_ones(len(images)))

    def parts(self) -> tuple[tuple[Int[Tensor, " N"], Float[Tensor, " N"]], ...]:
        """W as two sparse matrices: a caption for each image, and its share."""
        return (self.own, self.lam), (self.partner, 1 - self.lam)

    def mass(self, num_captions: int, first: int) -> Float[Tensor, " G"]:
        """Sums of W's columns, this rank's captions being those from ``first`` on."""
        mass = self.lam.new_zeros(num_captions)
        for caption, share in self.parts():
            mass.index_add_(0, caption + first, share)
        return mass
