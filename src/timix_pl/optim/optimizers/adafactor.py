"""Adafactor (Shazeer and Stern 2018), in PyTorch's implementation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("adafactor")
class Adafactor(OptimizerChoice):
    """Stores only the mean square gradient of each row and column of a matrix, so its state needs almost no memory.

    A step is relative to the size of the weights: the learning rate times their root mean square.

    Args:
        beta2_decay: the decay of the mean squares in step t is 1 - t ** beta2_decay; at most 0.
        clip_threshold: largest root mean square of an update, before it is multiplied by the learning rate; at least 1.
    Raises:
        ValueError: an option is out of range.
    """

    shards = False  # PyTorch 2.15 computes the norms of rows and columns in place, which DTensor does not support

    def __init__(self, *, beta2_decay: float = -0.8, clip_threshold: float = 1.0):
        if beta2_decay > 0 or clip_threshold < 1:
            raise ValueError("beta2_decay must be at most 0, and clip_threshold at least 1")
        self.beta2_decay, self.clip_threshold = beta2_decay, clip_threshold

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        return torch.optim.Adafactor(groups, lr=lr, beta2_decay=self.beta2_decay, d=self.clip_threshold)

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        step = torch.zeros(())  # on the CPU, even if the parameter is on a GPU
        if parameter.ndim < 2:
            return {"step": step, "variance": torch.zeros_like(parameter)}
        rows, columns = [*parameter.shape[:-1], 1], [*parameter.shape[:-2], 1, parameter.shape[-1]]
        return {"step": step, "row_var": parameter.new_zeros(rows), "col_var": parameter.new_zeros(columns)}
