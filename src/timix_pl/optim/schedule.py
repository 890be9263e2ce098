"""Learning rate as a function of samples consumed."""

import math


def learning_rate(
    consumed: int, *, peak: float, warmup: int, total: int, kind: str = "cosine", minimum: float = 0.0, cooldown: int = 0
) -> float:
    """The rate for the step that brings the samples consumed to ``consumed``.

    Args:
        consumed: samples of finished steps and of this one; ``warmup``: samples over which the rate rises linearly to ``peak``.
        total: samples of the run as planned at its first start; beyond it the rate stays at what it was at the end.
        kind: ``cosine``, ``constant``, or ``constant_with_cooldown``, which falls linearly to ``minimum`` over the last ``cooldown``
            samples.
    """
    consumed = min(consumed, total)
    if consumed < warmup:
        return peak * consumed / warmup
    if kind == "constant":
        return peak
    if kind == "constant_with_cooldown":
        left = (total - consumed) / cooldown if cooldown else 1.0
        return minimum + (peak - minimum) * min(left, 1.0)
    progress = (consumed - warmup) / max(total - warmup, 1)
    return minimum + (peak - minimum) * (1 + math.cos(math.pi * progress)) / 2
