"""``optim.*``: the optimizer and the learning rate."""

from dataclasses import dataclass
from typing import Any

from timix_pl.config.facts import AnyOf, Resume, TakenBy, Unless, When, option, section
from timix_pl.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range
from timix_pl.config.schema.tasks import TunedTowers
from timix_pl.core.choices import OPTIMIZERS, SCHEDULES

TOWERS_LEARN = [AnyOf(When("task", "pretrain"), When("tune.towers", TunedTowers.last, TunedTowers.all))]
HEAD_LEARNS = [AnyOf(When("pta.enabled", True), Unless("loss.terms", []), Unless("task", "pretrain"))]


@dataclass
class LrScaleConfig:
    """Factors on the learning rate for the model's parts."""

    image: float = option(1.0, "Factor on optim.lr for the image tower.", within=NOT_NEGATIVE, used=TOWERS_LEARN)
    text: float = option(1.0, "Factor on optim.lr for the text tower.", within=NOT_NEGATIVE, used=TOWERS_LEARN)
    head: float = option(
        1.0, "Factor on optim.lr for the PTA head, further loss terms, and the head of a task.", within=NOT_NEGATIVE, used=HEAD_LEARNS
    )


@dataclass
class OptimConfig:
    """The optimizer and the learning rate."""

    kind: str = option("adamw", "The optimizer; docs/optimizers.md compares them.", registry=OPTIMIZERS)
    options: dict[str, Any] = option({}, "Options of the optimizer that have no key here: optim.options.NAME=VALUE.")
    lr: float = option(5e-4, "Peak learning rate.", within=POSITIVE, resume=Resume.same_run, on_card=True, frequent=True)
    weight_decay: float = option(
        0.2,
        "Weight decay. Not applied to biases, normalisation weights, position and class embeddings, and the temperature.",
        within=NOT_NEGATIVE,
        on_card=True,
    )
    beta1: float | None = option(
        None, "Decay of the first moment; null: the optimizer's own default.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)]
    )
    beta2: float | None = option(
        None, "Decay of the second moment; null: the optimizer's own default.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)]
    )
    eps: float | None = option(
        None,
        "Term added to the denominator, for numerical stability; null: the optimizer's own default.",
        within=POSITIVE,
        used=[TakenBy(OPTIMIZERS)],
    )
    momentum: float | None = option(
        None, "Momentum factor; null: the optimizer's own default.", within=BELOW_ONE, used=[TakenBy(OPTIMIZERS)]
    )
    lr_scale: LrScaleConfig = section(LrScaleConfig, "Factors on the learning rate")
    layer_decay: float = option(
        1.0,
        "Each block's learning rate is this factor times the next block's, so that the embeddings have the lowest; 1: one rate per tower.",
        within=Range(0, 1, above=True),
        used=TOWERS_LEARN,
    )
    schedule: str = option(
        "cosine",
        "Learning rate schedule after the warm-up, a function of the samples consumed.",
        registry=SCHEDULES,
        resume=Resume.same_run,
    )
    warmup_frac: float = option(
        0.05, "Share of the run over which the learning rate rises linearly from 0.", within=SHARE, resume=Resume.same_run
    )
    cooldown_frac: float = option(
        0.2,
        "Share of the run, at its end, over which the learning rate falls to min_lr.",
        within=SHARE,
        used=[TakenBy(SCHEDULES)],
        resume=Resume.same_run,
    )
    min_lr: float = option(
        0.0, "Learning rate at the end of the schedule.", within=NOT_NEGATIVE, used=[TakenBy(SCHEDULES)], resume=Resume.same_run
    )
    clip_grad_norm: float | None = option(
        1.0,
        "Largest norm of the gradient; null: no clipping. The norm is logged in both cases.",
        within=POSITIVE,
        resume=Resume.same_run,
    )
    ema: float | None = option(
        None,
        "Keep an exponential moving average of the weights with this decay, e.g. 0.9999, for evaluation.weights=ema; null: keep none.",
        within=Range(0, 1, above=True, below=True),
    )
