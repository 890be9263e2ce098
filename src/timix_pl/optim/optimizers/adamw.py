"""AdamW (Loshchilov and Hutter 2019), in PyTorch's fused implementation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("adamw")
class AdamW(OptimizerChoice):
    """AdamW. Fused, because only the fused version can skip an update on the device.

    Args:
        beta1, beta2: decay of the first and the second moment.
        eps: added to the denominator, for numerical stability.
    """

    masks_updates = True

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.98, eps: float = 1e-6):
        self.betas, self.eps = (beta1, beta2), eps

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, eps=self.eps, fused=True)

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        step = torch.zeros((), device=parameter.device)
        return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
