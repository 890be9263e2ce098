"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), in timm's implementation."""

from collections.abc import Mapping
from typing import Any

import timm.optim
import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("lion")
class Lion(OptimizerChoice):
    """Moves each weight by the learning rate in the direction of the momentum's sign. Its state is half the size of AdamW's.

    Args:
        beta1: weight of the momentum, against the gradient, in the direction of a step.
        beta2: decay of the momentum.
    """

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.99):
        self.betas = (beta1, beta2)

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        return timm.optim.Lion(groups, lr=lr, betas=self.betas)

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        return {"exp_avg": torch.zeros_like(parameter)}
