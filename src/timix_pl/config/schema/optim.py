"""``optim.*``: the optimizer and the learning rate."""

from dataclasses import dataclass
from typing import Any

from timix_pl.config.option import AnyOf, Resume, TakenBy, Unless, When, option, section
from timix_pl.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range
from timix_pl.config.schema.tasks import TunedTowers
from timix_pl.core.choices import OPTIMIZERS, SCHEDULES

TOWERS_LEARN = [AnyOf(When("task", "pretrain"), When("tune.towers", TunedTowers.last, TunedTowers.all))]
HEAD_LEARNS = [AnyOf(When("pta.enabled", True), Unless("task", "pretrain"))]


@dataclass
class LrScaleConfig:
    """Learning rates of the model's parts."""

    image: float = option(1.0, "The image tower's learning rate, as a share of optim.lr.", within=NOT_NEGATIVE, used=TOWERS_LEARN)
    text: float = option(1.0, "The text tower's learning rate, as a share of optim.lr.", within=NOT_NEGATIVE, used=TOWERS_LEARN)
    head: float = option(
        1.0, "Learning rate of the PTA head and of a task's head, as a share of optim.lr.", within=NOT_NEGATIVE, used=HEAD_LEARNS
    )


@dataclass
class OptimConfig:
    """The optimizer and the learning rate."""

    kind: str = option("adamw", "The optimizer; docs/optimizers.md compares them.", registry=OPTIMIZERS)
    options: dict[str, Any] = option({}, "Further options of the optimizer: optim.options.NAME=VALUE.")
    lr: float = option(5e-4, "Peak learning rate.", within=POSITIVE, resume=Resume.same_run, on_card=True, frequent=True)
    weight_decay: float = option(
        0.2,
        "Weight decay. It spares biases, norms' gains, embeddings of positions and of the class token, and the temperature.",
        within=NOT_NEGATIVE,
        on_card=True,
    )
    beta1: float = option(0.9, "Decay of the first moment.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)])
    beta2: float = option(0.98, "Decay of the second moment.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)])
    eps: float = option(1e-6, "Added to the root of the second moment.", within=POSITIVE, used=[TakenBy(OPTIMIZERS)])
    momentum: float = option(0.9, "Decay of the momentum.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)])
    lr_scale: LrScaleConfig = section(LrScaleConfig, "Learning rates of parts")
    layer_decay: float = option(
        1.0,
        "Each block of a tower learns at this times the rate of the next block, the embeddings slowest; 1: all at the tower's rate.",
        within=Range(0, 1, above=True),
        used=TOWERS_LEARN,
    )
    schedule: str = option(
        "cosine",
        "What the learning rate does after the warm-up, as a function of the samples consumed.",
        registry=SCHEDULES,
        resume=Resume.same_run,
    )
    warmup_frac: float = option(0.05, "Share of the run over which the learning rate rises linearly.", within=SHARE, resume=Resume.same_run)
    cooldown_frac: float = option(
        0.2,
        "Share of the run over which the learning rate falls to min_lr at the end.",
        within=SHARE,
        used=[TakenBy(SCHEDULES)],
        resume=Resume.same_run,
    )
    min_lr: float = option(
        0.0, "Learning rate at the end of the schedule.", within=NOT_NEGATIVE, used=[TakenBy(SCHEDULES)], resume=Resume.same_run
    )
    clip_grad_norm: float | None = option(
        1.0,
        "Largest norm of the gradient; null: no clipping (the norm is logged all the same).",
        within=POSITIVE,
        resume=Resume.same_run,
    )
    ema: float | None = option(
        None,
        "Decay of a moving average of the weights, such as 0.9999, which evaluation.weights=ema uses; null: none is kept.",
        within=Range(0, 1, above=True, below=True),
    )
