"""Boxes on the patch grid. Boxes are ``xyxy_norm``: x0, y0, x1, y1 as shares of the image's width and height."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def centres_inside(boxes_xyxy_norm: Float[Tensor, "R 4"], grid: tuple[int, int]) -> Bool[Tensor, "R h w"]:
    """Whether the centre of each patch lies in each box, its edges included.

    Args:
        grid: rows and columns of patches.
    """
    x0, y0, x1, y1 = boxes_xyxy_norm.double()[:, :, None].unbind(dim=1)
    y, x = ((torch.arange(side, device=boxes_xyxy_norm.device) + 0.5).double() / side for side in grid)
    return ((y0 <= y) & (y <= y1))[:, :, None] & ((x0 <= x) & (x <= x1))[:, None, :]


def region_boxes(regions: Bool[Tensor, "R h w"]) -> Float[Tensor, "R 4"]:
    """The smallest box around each set of patches (at least one each), as xyxy_norm in fp64."""
    y0, y1 = _extent(regions.any(dim=2))
    x0, x1 = _extent(regions.any(dim=1))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _extent(occupied: Bool[Tensor, "R n"]) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Where the first occupied cell starts and the last one ends, as shares of the n cells."""
    num_cells = occupied.shape[1]
    start = occupied.int().argmax(dim=1)
    end = num_cells - occupied.flip(1).int().argmax(dim=1)
    return start.double() / num_cells, end.double() / num_cells


def box_iou(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Intersection over union of two tensors of boxes, 0 to 1; the leading axes broadcast."""
    intersection = _area(torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:]))
    union = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:]) - intersection
    return intersection / union


def _area(top_left: Float[Tensor, "... 2"], bottom_right: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
    return (bottom_right - top_left).clamp(min=0).prod(dim=-1)


def all_boxes(grid: tuple[int, int]) -> Float[Tensor, "A 4"]:
    """Every box made of whole patches, as xyxy_norm in fp64; A = h (h + 1) / 2 * w (w + 1) / 2."""
    rows, columns = (torch.combinations(torch.arange(side + 1)).double() / side for side in grid)
    y, x = rows.repeat_interleave(len(columns), dim=0), columns.repeat(len(rows), 1)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
