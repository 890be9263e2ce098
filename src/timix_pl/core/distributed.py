"""Ranks, and collectives that also work with a single process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from timix_pl.core.timing import Stopwatch

EXCHANGES = Stopwatch()
"""Measures the time of the tensor collectives in this file, without those inside DDP and FSDP."""

_ROWS_PER_EXCHANGE = 1 << 16


def world_size() -> int:
    """Number of processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 outside a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """Concatenate the rows of all ranks in rank order. Shapes must be equal on all ranks; gradients flow to every rank's rows."""
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather with gradients. Each rank's loss may use every row, so a row's gradient is the sum over the ranks' losses."""

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
    """The elementwise maximum of a detached tensor over all ranks."""
    x = x.detach().clone()
    if world_size() > 1:
        with EXCHANGES.running(x.device):
            dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def logsumexp_over_ranks(x: Tensor) -> Tensor:
    """The elementwise log-sum-exp of a detached tensor over all ranks. Each element must be finite on at least one rank."""
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
    """Concatenate the rows of all ranks on the CPU, in rank order. Ranks may have different numbers of rows.

    Needs little more memory than the result, because it empties ``parts`` as it copies.

    Args:
        parts: this rank's rows, as tensors of N x D; emptied.
        device: the device on which the process group exchanges tensors.
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
