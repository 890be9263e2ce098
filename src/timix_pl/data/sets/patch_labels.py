"""Which patches a box covers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from timix_pl.core.sample import Region

_ROUNDING = 1e-5
"""The share of a patch by which float32 may be wrong. A box that ends on the border of two patches must touch only one of them."""


def patch_labels(boxes_xyxy_norm: Float[Tensor, "R 4"], grid: tuple[int, int], min_cover: float = 0.0) -> Float[Tensor, "R P"]:
    """1 for each patch of which the box covers at least ``min_cover`` of the area (0: any touch), else 0.

    Args:
        boxes_xyxy_norm: x0, y0, x1, y1 as shares of the image.
        grid: rows and columns of the patch grid; P is their product, row by row.
    Source: Jiang et al. 2024, section 3.2.
    """
    covered = (
        _overlap(boxes_xyxy_norm[:, 1], boxes_xyxy_norm[:, 3], grid[0])[:, :, None]
        * _overlap(boxes_xyxy_norm[:, 0], boxes_xyxy_norm[:, 2], grid[1])[:, None, :]
    )
    return ((covered >= min_cover - _ROUNDING) & (covered > _ROUNDING)).flatten(1).float()


def boxes_by_phrase(regions: Sequence[Region]) -> dict[str, Float[Tensor, "n 4"]]:
    """The boxes of each phrase of one image. A phrase that comes several times ("person") has several boxes."""
    boxes: dict[str, list[tuple[float, ...]]] = {}
    for region in regions:
        boxes.setdefault(region.phrase, []).append(region.bbox_xyxy_norm)
    return {phrase: torch.tensor(of_phrase) for phrase, of_phrase in boxes.items()}


def _overlap(low: Float[Tensor, " R"], high: Float[Tensor, " R"], count: int) -> Float[Tensor, "R count"]:
    """The share of each of ``count`` equal cells that lies between low and high."""
    cells = torch.arange(count, device=low.device)
    return (torch.minimum(high[:, None] * count, cells + 1) - torch.maximum(low[:, None] * count, cells)).clamp(min=0)
