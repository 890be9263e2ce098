"""Stochastic gradient descent with momentum, in PyTorch's implementation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("sgd")
class SGD(OptimizerChoice):
    """SGD. Weight decay is added to the gradient after clipping (L2 regularisation).

    Not fused, although only the fused version can skip an update on the device: PyTorch 2.15 has no fused SGD for sharded parameters.

    Args:
        momentum: decay of the sum of gradients; 0: no momentum and no state.
    """

    def __init__(self, *, momentum: float = 0.9):
        self.momentum = momentum

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum)

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        return {"momentum_buffer": torch.zeros_like(parameter)} if self.momentum else {}
