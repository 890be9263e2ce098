"""Exponential moving average of the weights (EMA)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class WeightAverage(nn.Module):
    """After each step, ``average = decay * average + (1 - decay) * weights``, of all weights that are trained; at first it is the weights.

    A sharded model has a sharded average. torch's ``AveragedModel`` cannot copy a sharded model, and waits for the device in each step.

    Args:
        model: lies where it stays.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self.weights = nn.ParameterDict(
            {
                _key(name): nn.Parameter(parameter.detach().clone(), requires_grad=False)
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        )

    @torch.no_grad()
    def update(self, model: nn.Module, is_taken: Bool[Tensor, ""]) -> None:
        """Take in the weights after a step; where it was left out, on the device, the average stays as it is."""
        averages, weights = self._pairs(model)
        share = ((1 - self.decay) * is_taken).to(averages[0].device)
        torch._foreach_lerp_(averages, weights, [share] * len(averages))

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the averaged weights. Enter it before the weights of a sharded model are gathered."""
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
        """Averages and weights, on this rank."""
        named = dict(model.named_parameters())
        pairs = [(average, named[_name(key)]) for key, average in self.weights.items()]
        averages, weights = ([_local(pair[side]) for pair in pairs] for side in (0, 1))
        return averages, weights


def averaged_weights(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The averages among the entries of a state by the names of the weights; empty if there are none.

    Args:
        prefix: what the names of a :class:`WeightAverage` begin with.
    """
    prefix = f"{prefix}weights."
    return {_name(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}


def _key(name: str) -> str:
    """Names of parameters may not hold dots."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")


def _local(parameter: Tensor) -> Tensor:
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).detach()
