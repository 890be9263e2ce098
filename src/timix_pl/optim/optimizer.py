"""What every optimizer is to a run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor


class OptimizerChoice(ABC):
    """Builds an optimizer, and states what the rest of timix-pl must know of it.

    Keyword-only parameters of the constructor are options of the configuration.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""

    masks_updates: ClassVar[bool] = False
    """The optimizer leaves out an update on the device where its ``found_inf`` is 1, so that the host need not wait for the flag."""

    shards: ClassVar[bool] = True
    """The optimizer works on sharded parameters (``trainer=fsdp``)."""

    for_hidden_matrices: ClassVar[bool] = False
    """The optimizer treats the matrices of hidden layers in another way: they come in groups of their own, with ``hidden=True``."""

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """The optimizer. It must leave a parameter without gradient, and its state, as they are.

        Args:
            groups: parameter groups, each with its ``weight_decay``.
            lr: peak learning rate.
        """

    @abstractmethod
    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the optimizer keeps of a parameter: names, shapes, types and places. The values are those before the first step.

        A sharded parameter (``DTensor``) has a sharded state. The state that a run starts with and ``dry_run`` are made from it.

        Args:
            group: the parameter group that it is in.
        """

    def start(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """The optimizer with the state of each parameter, which optimizers of PyTorch only make in their first step.

        A checkpoint thus has the same tensors after any step, and can be read into what is there.
        """
        optimizer = self.build(groups, lr)
        for group in optimizer.param_groups:
            optimizer.state.update({parameter: self.state(parameter, group) for parameter in group["params"]})
        return optimizer
