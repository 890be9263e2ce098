"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), timm's."""

from collections.abc import Mapping
from typing import Any

import timm.optim
import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("lion")
class Lion(OptimizerChoice):
    """Each weight moves by the learning rate, in the direction of the sign of a momentum. It keeps half of AdamW's state.

    Args:
        beta1: share of the momentum in the direction of a step.
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
