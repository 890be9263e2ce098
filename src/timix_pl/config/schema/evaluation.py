"""``evaluation.*``: which evaluations run, and how."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.facts import AnyOf, Includes, TakenBy, Unless, When, option
from timix_pl.config.rules import COUNT, NOT_NEGATIVE, FileOr, Range
from timix_pl.core.choices import EVALUATORS

Weights = StrEnum("Weights", ["last", "ema"])

RETRIEVAL = [Includes("evaluation.tasks", "retrieval")]
ZERO_SHOT = [Includes("evaluation.tasks", "zero_shot")]
NOISE = [Includes("evaluation.tasks", "noise")]
PAIRS = [Includes("evaluation.tasks", "mutual_information", "noise")]


@dataclass
class EvaluationConfig:
    """Evaluation."""

    tasks: list[str] = option(
        ["retrieval", "zero_shot", "grounding"],
        "Evaluations to run. One without data is skipped with a warning.",
        registry=EVALUATORS,
    )
    options: dict[str, Any] = option({}, "Options that only one evaluation has: evaluation.options.TASK.NAME=VALUE.")
    every_n_steps: int | None = option(
        1000,
        "Steps between evaluations; the last step is always evaluated. null: evaluate only at the end.",
        within=COUNT,
        used=[AnyOf(Unless("evaluation.tasks", []), When("evaluation.every_n_steps", None))],
        in_evaluation=False,
    )
    weights: Weights = option(
        Weights.last, "last: evaluate the current weights; ema: their moving average (optim.ema).", used=[Unless("optim.ema", None)]
    )
    batch_size: int = option(
        128,
        "Images per forward pass of an evaluation, per rank.",
        within=COUNT,
        used=[Unless("evaluation.tasks", []), TakenBy(EVALUATORS)],
    )
    captions_per_image: int | None = option(
        None,
        "retrieval: use the first n captions of each image (5 is COCO's protocol); null: all.",
        within=COUNT,
        used=[*RETRIEVAL, TakenBy(EVALUATORS)],
    )
    retrieval_folds: int = option(
        1,
        "retrieval: split the set into this many equal folds and average over them (5 folds of COCO's 5,000 test images: COCO 1k).",
        within=COUNT,
        used=RETRIEVAL,
    )
    classes: str | None = option(
        None,
        "zero_shot: class names, from a .json or .txt file, or imagenet; null: classes.json beside the images, else the folder names.",
        within=FileOr(("imagenet",)),
        used=ZERO_SHOT,
    )
    templates: str | None = option(
        None,
        "zero_shot: caption templates: a .json or .txt file, openai_imagenet or simple; null: those of the class file, else simple.",
        within=FileOr(("openai_imagenet", "simple")),
        used=ZERO_SHOT,
    )
    mi_pairs: int = option(
        128,
        "mutual_information, noise: pairs per batch. The bound and the losses depend on it, so compare only equal sizes.",
        within=Range(2),
        used=PAIRS,
    )
    num_train_pairs: int = option(
        2048, "mutual_information, noise: number of training pairs that are evaluated, always the same ones.", within=Range(2), used=PAIRS
    )
    noise_field: str = option(
        "misalignment.kind",
        "noise: field of a sample's JSON: true or a word other than none means that the caption is misaligned; or a score of the match.",
        used=NOISE,
    )
    noise_min_score: float | None = option(
        None, "noise: if noise_field is a score, pairs below this value count as misaligned.", within=NOT_NEGATIVE, used=NOISE
    )
