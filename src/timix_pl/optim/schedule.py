"""Learning rate as a function of samples consumed."""

from abc import ABC, abstractmethod


class Schedule(ABC):
    """What follows the warm-up. Keyword-only parameters of the constructor are options of the configuration."""

    @abstractmethod
    def rate(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """The learning rate after the warm-up.

        Args:
            consumed: samples, at least ``warmup`` and at most ``total``.
            peak: the learning rate at the end of the warm-up.
            warmup: samples of the warm-up.
            total: samples of the whole run.
        """

    def __call__(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """The rate for the step that brings the samples consumed to ``consumed``.

        Args:
            consumed: samples of finished steps and of this one.
            peak: the highest learning rate.
            warmup: samples over which the rate rises linearly to ``peak``.
            total: samples of the run as planned at its first start; beyond it the rate stays at what it was at the end.
        """
        consumed = min(consumed, total)
        return peak * consumed / warmup if consumed < warmup else self.rate(consumed, peak=peak, warmup=warmup, total=total)
