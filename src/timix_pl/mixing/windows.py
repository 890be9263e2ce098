"""Square, patch-aligned windows: choose their side, sum scores over them, and paste one over another."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from timix_pl.core.errors import ShapeError
from timix_pl.core.randomness import integer
from timix_pl.core.types import Windows


def side_range(grid: tuple[int, int], min_side: float, max_side: float) -> tuple[int, int]:
    """Smallest and largest side in patches: floor(share * g), at least 1, where g is the grid's shorter side.

    Raises:
        ShapeError: the grid is too small for a window that does not cover the whole image.
    """
    shorter = min(grid)
    low, high = max(int(min_side * shorter), 1), int(max_side * shorter)
    if high < 1 or low * low >= grid[0] * grid[1]:
        raise ShapeError(
            f"`min_side={min_side}`, `max_side={max_side}`: the patch grid of {grid[0]} x {grid[1]} is too small for a window; "
            "use larger images (`image_size_px`), smaller patches, or a larger `max_side`"
        )
    return low, max(low, high)


def draw_side(grid: tuple[int, int], min_side: float, max_side: float, *, seed: int, step: int) -> int:
    """This step's side in patches, the same on all ranks: a uniform integer in :func:`side_range`."""
    return integer(*side_range(grid, min_side, max_side), "side", seed, step)


def window_sums(scores: Float[Tensor, "M h w"], side: int) -> Float[Tensor, "M hh ww"]:
    """Sum of the scores over every side-by-side window."""
    return F.avg_pool2d(scores[:, None], side, stride=1)[:, 0] * side**2


def corners(flat_index: Int[Tensor, " M"], num_columns: int) -> Int[Tensor, "M 2"]:
    """Convert flat positions on a grid to row and column."""
    return torch.stack((flat_index // num_columns, flat_index % num_columns), 1)


def in_windows(windows: Windows, grid: tuple[int, int]) -> Bool[Tensor, "M P"]:
    """The patches of the mixed images that show the partner."""
    ys, xs = (torch.arange(length, device=windows.target.device) for length in grid)
    top, left = windows.target[:, :1], windows.target[:, 1:]
    in_rows, in_columns = (ys >= top) & (ys < top + windows.side), (xs >= left) & (xs < left + windows.side)
    return (in_rows[:, :, None] & in_columns[:, None]).flatten(1)


def _pixels(corner: Int[Tensor, "M 2"], side: int, patch: tuple[int, int]) -> tuple[Tensor, Tensor]:
    ys = corner[:, 0, None] * patch[0] + torch.arange(side * patch[0], device=corner.device)
    xs = corner[:, 1, None] * patch[1] + torch.arange(side * patch[1], device=corner.device)
    return ys[:, :, None], xs[:, None, :]


def paste(
    images: Float[Tensor, "B c H W"], rows: Int[Tensor, " M"], partners: Int[Tensor, " M"], windows: Windows, grid: tuple[int, int]
) -> Float[Tensor, "M c H W"]:
    """Copies of ``images[rows]`` with the source windows of ``images[partners]`` in their target windows. ``images`` is not modified."""
    patch = images.shape[2] // grid[0], images.shape[3] // grid[1]
    ty, tx = _pixels(windows.target, windows.side, patch)
    sy, sx = _pixels(windows.source, windows.side, patch)
    mixed = images[rows]
    here = torch.arange(len(rows), device=images.device)[:, None, None]
    mixed[here, :, ty, tx] = images[partners[:, None, None], :, sy, sx]
    return mixed
