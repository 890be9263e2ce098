"""Mosaics: mixed images of random blocks, which teach the PTA head because the caption of each patch is known."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timix_pl.core.randomness import bits
from timix_pl.core.types import Mosaics

BLOCK = 2


def num_mosaics(num_mixed: int, frac: float) -> int:
    """The number of mosaics among the mixed rows of a group."""
    return round(frac * num_mixed)


def draw_mosaics(
    num_rows: int, grid: tuple[int, int], *, group_size: int, num_mixed: int, frac: float, seed: int, step: int, first: int
) -> Mosaics:
    """Which mixed images of a local batch are mosaics, and the blocks in which each shows its partner, on the CPU.

    In each group, the first ``frac`` of the mixed rows become mosaics; their order is random. A mosaic's blocks of 2 x 2 patches are its
    own or its partner's with equal probability, drawn from (seed, step, group).

    Args:
        num_rows: rows of the local batch.
        num_mixed: mixed rows per group.
        first: position of local row 0 in the global batch.
    """
    per_group, height, width = num_mosaics(num_mixed, frac), -(-grid[0] // BLOCK), -(-grid[1] // BLOCK)
    which, inside = [], []
    for number, start in enumerate(range(0, num_rows, group_size)):
        words = bits(per_group * height * width, "mosaic", seed, step, (first + start) // group_size)
        blocks = torch.from_numpy(words >> 63 == 1).view(per_group, height, width)
        inside.append(blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, : grid[0], : grid[1]].flatten(1))
        which.append(torch.arange(per_group) + number * num_mixed)
    return Mosaics(torch.cat(which), torch.cat(inside))


def put_together(
    images: Float[Tensor, "B c H W"],
    rows: Int[Tensor, " K"],
    partners: Int[Tensor, " K"],
    inside: Bool[Tensor, "K P"],
    grid: tuple[int, int],
) -> Float[Tensor, "K c H W"]:
    """The rows' images, with the partners' patches, at the same place, where ``inside``."""
    pixels = inside.view(-1, 1, *grid)
    pixels = pixels.repeat_interleave(images.shape[2] // grid[0], 2).repeat_interleave(images.shape[3] // grid[1], 3)
    return torch.where(pixels, images[partners], images[rows])
