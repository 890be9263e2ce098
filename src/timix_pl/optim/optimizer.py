"""Base class of optimizers that a run can choose."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor


class OptimizerChoice(ABC):
    """Builds an optimizer, and declares the traits that the rest of timix-pl needs to know.

    Keyword-only parameters of the constructor are options of the configuration.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""

    masks_updates: ClassVar[bool] = False
    """The optimizer skips an update on the device if its ``found_inf`` is 1, so that the host need not wait for that flag."""

    shards: ClassVar[bool] = True
    """The optimizer works on sharded parameters (``trainer=fsdp``)."""

    for_hidden_matrices: ClassVar[bool] = False
    """The optimizer treats the matrices of hidden layers differently. They come in separate groups, with ``hidden=True``."""

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Build the optimizer. It must not change a parameter without a gradient, nor its state.

        Args:
            groups: parameter groups, each with its ``weight_decay``.
            lr: peak learning rate.
        """

    @abstractmethod
    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """The optimizer's state for a parameter before the first step: names, shapes, types, devices and initial values.

        A sharded parameter (``DTensor``) has a sharded state. A run starts with this state, and ``dry_run`` counts its memory.

        Args:
            group: the parameter group of the parameter.
        """

    def start(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """The optimizer with the state of each parameter. PyTorch's optimizers would create the state only in their first step.

        So a checkpoint has the same tensors after any step, and can be loaded into existing ones.
        """
        optimizer = self.build(groups, lr)
        for group in optimizer.param_groups:
            optimizer.state.update({parameter: self.state(parameter, group) for parameter in group["params"]})
        return optimizer
