"""Fall from the peak learning rate along half a cosine wave until the end of the run."""

import math

from timix_pl.core.choices import SCHEDULES
from timix_pl.optim.schedule import Schedule


@SCHEDULES.register("cosine")
class Cosine(Schedule):
    """Falls along a cosine.

    Args:
        min_lr: learning rate at the end.
    """

    def __init__(self, *, min_lr: float = 0.0):
        self.min_lr = min_lr

    def rate(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """See :class:`Schedule`."""
        progress = (consumed - warmup) / max(total - warmup, 1)
        return self.min_lr + (peak - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2
