"""Which rows are mixed, and with which partners."""

import torch
from jaxtyping import Int
from torch import Tensor

from timix_pl.core.errors import ShapeError
from timix_pl.core.randomness import permutation


def num_mixed_rows(group_size: int, ratio: float) -> int:
    """Rows of each group that are mixed: round(ratio * group_size), or 0 if that is 1, because a row must not be its own partner."""
    count = round(ratio * group_size)
    return count if count >= 2 else 0


def mixed_rows(
    batch_size: int, group_size: int, ratio: float, *, seed: int, step: int, first: int
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """The rows to mix in this step and the partner of each, both as rows of the local batch.

    The global batch is split by position into groups. In each group, a random order is drawn from (seed, step, group), and its first rows
    are mixed. The partner of a row is the next one in that order, cyclically. So partners are mixed rows too, and the same at any world
    size.

    Args:
        batch_size: rows of the local batch.
        first: position of local row 0 in the global batch.
    Raises:
        ShapeError: group_size does not divide batch_size or first.
    """
    if batch_size % group_size or first % group_size:
        raise ShapeError(
            f"`group_size={group_size}` must divide every rank's batch (here {batch_size} rows from {first}); choose a divisor"
        )
    count = num_mixed_rows(group_size, ratio)
    rows, partners = [], []
    for start in range(0, batch_size, group_size):
        order = permutation(group_size, "mixing", seed, step, (first + start) // group_size)[:count]
        chosen = torch.from_numpy(order) + start
        rows.append(chosen)
        partners.append(chosen.roll(-1))
    return torch.cat(rows), torch.cat(partners)
