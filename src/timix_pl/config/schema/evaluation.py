"""``evaluation.*``: what is evaluated, and how."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.option import Includes, Unless, option
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
        "What to evaluate. Tasks without data are left out; a message says so.",
        registry=EVALUATORS,
    )
    options: dict[str, Any] = option({}, "Options of a plugin's evaluation: evaluation.options.TASK.NAME=VALUE.")
    every_n_steps: int | None = option(
        1000, "Evaluate every n steps and at the end; null: only at the end.", within=COUNT, in_evaluation=False
    )
    weights: Weights = option(
        Weights.last, "Evaluate the last weights, or their moving average (optim.ema).", used=[Unless("optim.ema", None)]
    )
    batch_size: int = option(128, "Images per forward pass of an evaluation, per rank.", within=COUNT)
    captions_per_image: int | None = option(
        None,
        "Retrieval takes only so many captions of each image, the first ones (5: COCO's protocol); null: all.",
        within=COUNT,
        used=RETRIEVAL,
    )
    retrieval_folds: int = option(
        1,
        "Retrieval in so many equal parts of the set, averaged (5: COCO 1k out of its 5,000 test images).",
        within=COUNT,
        used=RETRIEVAL,
    )
    classes: str | None = option(
        None,
        "Class names for zero_shot: a .json or .txt file, or imagenet; null: classes.json beside the images, else the folders' names.",
        within=FileOr(("imagenet",)),
        used=ZERO_SHOT,
    )
    templates: str | None = option(
        None,
        "Caption templates for zero_shot: a .json or .txt file, openai_imagenet or simple; null: those of the classes' file, else simple.",
        within=FileOr(("openai_imagenet", "simple")),
        used=ZERO_SHOT,
    )
    mi_pairs: int = option(
        128,
        "mutual_information, noise: pairs per batch; the bound and the losses depend on it.",
        within=Range(2),
        used=PAIRS,
    )
    num_train_pairs: int = option(
        2048, "mutual_information, noise: size of the fixed sample of training pairs.", within=Range(2), used=PAIRS
    )
    noise_field: str = option(
        "misalignment.kind",
        "noise: field of a sample's JSON: true, or a word other than none, where the caption is misaligned; or a score of the match.",
        used=NOISE,
    )
    noise_min_score: float | None = option(
        None, "noise: where the field is a score, pairs below this are misaligned.", within=NOT_NEGATIVE, used=NOISE
    )
