"""What every optimizer is to a run."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor


class OptimizerChoice(ABC):
    """Builds an optimizer, and states what the rest of timix-pl must know of it.

    Keyword-only parameters of the constructor are options of the configuration.
    """

    masks_updates: ClassVar[bool] = False
    """An update is left out on the device where the optimizer's ``found_inf`` is 1, so that the host need not wait for the flag."""

    @abstractmethod
    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """The optimizer. It must leave a parameter without gradient, and its state, as they are.

        Args:
            groups: parameter groups, each with its ``weight_decay``.
            lr: peak learning rate.
        """

    @abstractmethod
    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What the optimizer keeps of a parameter after its first step: names, shapes and types; the values do not matter.

        A sharded parameter (``DTensor``) has a sharded state. Checkpoints are read into it, and dry_run counts its memory.
        """
