"""Stay at the peak learning rate until the end of the run."""

from timix_pl.core.choices import SCHEDULES
from timix_pl.optim.schedule import Schedule


@SCHEDULES.register("constant")
class Constant(Schedule):
    """Stays at the peak."""

    def rate(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """See :class:`Schedule`."""
        return peak
