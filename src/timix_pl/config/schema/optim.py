"""``optim.*``: the optimizer and the learning rate."""

from dataclasses import dataclass
from typing import Any

from timix_pl.config.option import TakenBy, option
from timix_pl.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE
from timix_pl.core.choices import OPTIMIZERS, SCHEDULES


@dataclass
class OptimConfig:
    """The optimizer and the learning rate."""

    kind: str = option("adamw", "The optimizer.", registry=OPTIMIZERS)
    options: dict[str, Any] = option({}, "Further options of the optimizer: optim.options.NAME=VALUE.")
    lr: float = option(5e-4, "Peak learning rate.", within=POSITIVE, on_card=True, frequent=True)
    weight_decay: float = option(
        0.2,
        "Weight decay. It spares biases, norms' gains, embeddings of positions and of the class token, and the temperature.",
        within=NOT_NEGATIVE,
        on_card=True,
    )
    beta1: float = option(0.9, "Decay of the first moment.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)])
    beta2: float = option(0.98, "Decay of the second moment.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)])
    eps: float = option(1e-6, "Added to the root of the second moment.", within=POSITIVE, used=[TakenBy(OPTIMIZERS)])
    schedule: str = option(
        "cosine",
        "What the learning rate does after the warm-up, as a function of the samples consumed.",
        registry=SCHEDULES,
    )
    warmup_frac: float = option(0.05, "Share of the run over which the learning rate rises linearly.", within=SHARE)
    cooldown_frac: float = option(
        0.2, "Share of the run over which the learning rate falls to min_lr at the end.", within=SHARE, used=[TakenBy(SCHEDULES)]
    )
    min_lr: float = option(0.0, "Learning rate at the end of the schedule.", within=NOT_NEGATIVE, used=[TakenBy(SCHEDULES)])
    clip_grad_norm: float | None = option(
        1.0, "Largest norm of the gradient; null: no clipping (the norm is logged all the same).", within=POSITIVE
    )
