"""Adafactor (Shazeer and Stern 2018), PyTorch's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice


@OPTIMIZERS.register("adafactor")
class Adafactor(OptimizerChoice):
    """Of a matrix it keeps the mean square gradient of each row and each column only, so that its state takes next to no memory.

    A step is relative to the size of the weights: it is the learning rate times their root mean square.

    Args:
        beta2_decay: the mean squares of step t have the decay 1 - t ** beta2_decay; not above 0.
        clip_threshold: largest root mean square of an update before the learning rate; at least 1.
    Raises:
        ValueError: an option is out of range.
    """

    shards = False  # PyTorch 2.15 computes the norms of rows and columns in place, which DTensor cannot

    def __init__(self, *, beta2_decay: float = -0.8, clip_threshold: float = 1.0):
        if beta2_decay > 0 or clip_threshold < 1:
            raise ValueError("beta2_decay must be at most 0, and clip_threshold at least 1")
        self.beta2_decay, self.clip_threshold = beta2_decay, clip_threshold

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        return torch.optim.Adafactor(groups, lr=lr, beta2_decay=self.beta2_decay, d=self.clip_threshold)

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        step = torch.zeros(())  # on the CPU, wherever the parameter is
        if parameter.ndim < 2:
            return {"step": step, "variance": torch.zeros_like(parameter)}
        rows, columns = [*parameter.shape[:-1], 1], [*parameter.shape[:-2], 1, parameter.shape[-1]]
        return {"step": step, "row_var": parameter.new_zeros(rows), "col_var": parameter.new_zeros(columns)}
