"""Exponential moving average of the weights (EMA)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class WeightAverage(nn.Module):
    """Keeps ``average = decay * average + (1 - decay) * weights`` of all trained weights, updated after each step.

    The running statistics of batch normalisation are averaged, too: they belong to the weights that they were computed with. The average
    starts with the weights themselves. A sharded model has a sharded average. torch's ``AveragedModel`` cannot copy a sharded model, and
    waits for the device in each step.

    Args:
        model: already on its device, and sharded if it will be.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self.weights = nn.ParameterDict(
            {_key(name): nn.Parameter(tensor.detach().clone(), requires_grad=False) for name, tensor in _averaged(model).items()}
        )

    @torch.no_grad()
    def update(self, model: nn.Module, is_taken: Bool[Tensor, ""]) -> None:
        """Update the average after a step. If the step was skipped (``is_taken``, on the device, is False), the average does not change."""
        averages, weights = self._pairs(model)
        share = ((1 - self.decay) * is_taken).to(averages[0].device)
        torch._foreach_lerp_(averages, weights, [share] * len(averages))

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside this context, the model has the averaged weights. Enter it before the weights of a sharded model are gathered."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for average, weight in zip(*self._pairs(model), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """The averages and the weights, this rank's parts."""
        named: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        pairs = [(average, named[_name(key)]) for key, average in self.weights.items()]
        averages, weights = ([_local(pair[side]) for pair in pairs] for side in (0, 1))
        return averages, weights


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """Trained weights, and the buffers of a checkpoint that are no counters."""
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    stored = model.state_dict(keep_vars=True)
    return weights | {name: buffer for name, buffer in model.named_buffers() if name in stored and buffer.is_floating_point()}


def averaged_weights(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The averaged weights in a state dict, by the names of the weights; empty if there are none.

    Args:
        prefix: the prefix of the :class:`WeightAverage` in the state dict.
    """
    prefix = f"{prefix}weights."
    return {_name(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}


def _key(name: str) -> str:
    """The key of a weight in the ``ParameterDict``, whose keys must not contain dots."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")


def _local(parameter: Tensor) -> Tensor:
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach()
