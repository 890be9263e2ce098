"""Stay at the peak learning rate, then fall linearly at the end of the run."""

from timix_pl.core.choices import SCHEDULES
from timix_pl.optim.schedule import Schedule


@SCHEDULES.register("constant_with_cooldown")
class ConstantWithCooldown(Schedule):
    """Stays at the peak, then falls linearly.

    Args:
        cooldown_frac: share of the run over which the rate falls.
        min_lr: learning rate at the end.
    """

    def __init__(self, *, cooldown_frac: float = 0.2, min_lr: float = 0.0):
        self.cooldown_frac, self.min_lr = cooldown_frac, min_lr

    def rate(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """See :class:`Schedule`."""
        cooldown = round(self.cooldown_frac * total)
        left = (total - consumed) / cooldown if cooldown else 1.0
        return self.min_lr + (peak - self.min_lr) * min(left, 1.0)
