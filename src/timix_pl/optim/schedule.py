"""Base class of learning rate schedules, which are functions of the samples consumed."""

from abc import ABC, abstractmethod


class Schedule(ABC):
    """A linear warm-up, then the schedule of the subclass. Keyword-only parameters of the constructor are options of the configuration."""

    @abstractmethod
    def rate(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """The learning rate after the warm-up.

        Args:
            consumed: samples consumed, at least ``warmup`` and at most ``total``.
            peak: the learning rate at the end of the warm-up.
            warmup: samples of the warm-up.
            total: samples of the whole run.
        """

    def __call__(self, consumed: int, *, peak: float, warmup: int, total: int) -> float:
        """The learning rate of the step after which ``consumed`` samples are consumed.

        Args:
            consumed: samples of all steps so far, including this one.
            peak: the highest learning rate.
            warmup: samples over which the rate rises linearly to ``peak``.
            total: samples of the run as planned at its first start; after them the rate keeps its last value.
        """
        consumed = min(consumed, total)
        return peak * consumed / warmup if consumed < warmup else self.rate(consumed, peak=peak, warmup=warmup, total=total)
