"""Ranks, and exchanges between them that also work with one process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from timix_pl.core.timing import Stopwatch

EXCHANGES = Stopwatch()
"""Times the exchanges of tensors in this file. Those that DDP or FSDP make on their own are not among them."""

_ROWS_PER_EXCHANGE = 1 << 16


def world_size() -> int:
    """Number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, concatenated in rank order; equal shapes on all ranks. Gradients flow to every rank's rows."""
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    """Each rank's loss may use every row, so a row's gradient is the sum of what all ranks ask of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        with EXCHANGES.running(x.device):
            dist.all_gather(parts, x.contiguous())
        ctx.num_rows = len(x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        with EXCHANGES.running(total.device):
            dist.all_reduce(total)
        return total[rank() * ctx.num_rows : (rank() + 1) * ctx.num_rows]


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a detached tensor over all ranks."""
    x = x.detach().clone()
    if world_size() > 1:
        with EXCHANGES.running(x.device):
            dist.all_reduce(x)
    return x


def max_over_ranks(x: Tensor) -> Tensor:
    """The largest of all ranks, element by element, of a detached tensor."""
    x = x.detach().clone()
    if world_size() > 1:
        with EXCHANGES.running(x.device):
            dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def logsumexp_over_ranks(x: Tensor) -> Tensor:
    """Elementwise, of a detached tensor that is finite on one rank at least; -inf adds nothing."""
    if world_size() == 1:
        return x
    highest = max_over_ranks(x)
    return highest + sum_over_ranks((x - highest).exp()).log()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's picklable value, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(parts: list[Tensor], device: torch.device) -> Tensor:
    """The rows of all ranks one after the other, on the CPU; each rank gives any number, in parts of N by D.

    It needs memory for the result and little more: ``parts`` is emptied on the way.

    Args:
        device: what the process group exchanges tensors on.
    """
    rows_of_rank = gather_objects(sum(len(part) for part in parts))
    like = next(x for x in gather_objects(parts[0][:0].clone() if parts else None) if x is not None)
    rows = like.new_empty(sum(rows_of_rank), *like.shape[1:])
    start = sum(rows_of_rank[: rank()])
    parts.reverse()
    while parts:
        part = parts.pop()
        rows[start : start + len(part)] = part
        start += len(part)
    for source, of_source in enumerate(rows.split(rows_of_rank) if world_size() > 1 else ()):
        for block in of_source.split(_ROWS_PER_EXCHANGE):
            sent = block.to(device)
            with EXCHANGES.running(device):
                dist.broadcast(sent, src=source)
            block.copy_(sent)
    return rows
