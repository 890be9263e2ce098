"""Robustness to noise: does the model tell misaligned pairs from aligned ones, and does it fit them all the same."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.pairs import encode_pairs
from timix_pl.evaluation.results import named
from timix_pl.metrics.grounding import average_precision
from timix_pl.metrics.ranking import roc_auc
from timix_pl.models.dual_encoder import DualEncoder

log = logging.getLogger(__name__)

_OF_SET = {
    "roc_auc": Metric(Unit.share, higher_is_better=True, label="ROC AUC", chance="a random order"),
    "average_precision": Metric(Unit.share, higher_is_better=True, label="average precision", chance="a random order"),
    "loss_aligned": Metric(Unit.nats, higher_is_better=False, label="loss aligned", chance="equal scores"),
    "loss_misaligned": Metric(Unit.nats, higher_is_better=True, label="loss misaligned", chance="equal scores"),
    "loss_gap": Metric(Unit.nats, higher_is_better=True, label="loss gap", chance="equal scores"),
}


@EVALUATORS.register("noise")
class Noise(Evaluator):
    """Compares pairs whose caption is known to match with pairs whose caption is known not to.

    Args:
        held_out, train: pairs that were not, and that were trained on; either may be None. An image's first caption is used.
        field: of a sample's JSON, dots lead into objects: true, or a word other than "none", means misaligned; a number is a score of how
            well the caption matches.
        min_score: scores below it mean misaligned; None: numbers are refused.
        num_pairs: pairs per batch of the losses.
        batch_size: pairs per forward pass on each rank, about.
        num_workers: loader processes per rank.
    """

    title = "noise"
    gathered: ClassVar[Mapping[str, str]] = {
        "held_out": "data.noise_shards",
        "train": "the sample of data.train_shards",
        "field": "evaluation.noise_field",
        "min_score": "evaluation.noise_min_score",
        "num_pairs": "evaluation.mi_pairs",
    }
    metrics: ClassVar[Mapping[str, Metric]] = {
        f"{name}/{key}": replace(metric, label=f"{label}, {metric.label}")
        for name, label in (("held_out", "held-out"), ("train", "train"))
        for key, metric in _OF_SET.items()
    }

    def __init__(
        self,
        held_out: Dataset[EvaluationItem] | None,
        train: Dataset[EvaluationItem] | None,
        *,
        field: str = "misalignment.kind",
        min_score: float | None = None,
        num_pairs: int = 128,
        batch_size: int,
        num_workers: int = 0,
    ):
        self.held_out, self.train, self.field, self.min_score = held_out, train, field, min_score
        self.num_pairs, self.batch_size, self.num_workers = num_pairs, batch_size, num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if not isinstance(run.model, DualEncoder):
            raise LeftOut("a fine-tuned model compares no pairs")
        held_out, train = run.evaluation_set("noise"), run.training_sample()
        options = {name: run.value(cls.gathered[name]) for name in ("field", "min_score", "num_pairs")}
        field = options["field"]
        if held_out is not None and train is not None and field_of(train[0].extra, field) is None:
            log.info("noise: the training pairs have no field %s (evaluation.noise_field); only data.noise_shards are looked at", field)
            train = None
        if held_out is None and train is None:
            raise LeftOut("data.noise_shards is not set and data=stream has no fixed sample of training pairs")
        return {"held_out": held_out, "train": train} | options

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Of each set, how well a low similarity tells misaligned pairs, and both kinds' losses; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: a sample lacks the field or cannot be read, there are fewer than ``num_pairs``, or whole batches have but one kind.
        """
        metrics: dict[str, float] = {}
        chance: dict[str, float] = {}
        with evaluating(model):
            for set_name, dataset in (("held_out", self.held_out), ("train", self.train)):
                if dataset is not None:
                    of_set, chance_of_set = self._of_set(model, dataset, device, set_name)
                    metrics |= {f"{set_name}/{key}": value for key, value in of_set.items()}
                    chance |= {f"{set_name}/{key}": value for key, value in chance_of_set.items()}
        return named(self, metrics, chance)

    def _of_set(
        self, model: DualEncoderLike, dataset: Dataset[EvaluationItem], device: torch.device, set_name: str
    ) -> tuple[dict[str, float], dict[str, float]]:
        what = f"`{set_name}`"
        num_pairs, batch_size, num_workers = self.num_pairs, self.batch_size, self.num_workers
        batches = encode_pairs(model, dataset, device, num_pairs=num_pairs, batch_size=batch_size, num_workers=num_workers, what=what)
        misaligned = torch.tensor([self._is_misaligned(key, extra, what) for pairs in batches for key, extra in pairs.extra])
        losses = torch.cat([pairs.losses() for pairs in batches if len(pairs.extra) == self.num_pairs])
        of_losses = misaligned[: len(losses)]
        if of_losses.all() or not of_losses.any():
            raise DataError(
                f"`field={self.field}`: all {len(losses)} pairs of {what} in whole batches (`num_pairs={num_pairs}`) "
                f"are {'misaligned' if of_losses.all() else 'aligned'}, and noise compares both kinds; "
                "name another field or set, or leave noise out of `evaluators`"
            )
        unlike = -torch.cat([pairs.similarities for pairs in batches])
        aligned, wrong = losses[~of_losses].mean().item(), losses[of_losses].mean().item()
        metrics = {"roc_auc": roc_auc(unlike[misaligned], unlike[~misaligned]), "average_precision": average_precision(unlike, misaligned)}
        metrics |= {"loss_aligned": aligned, "loss_misaligned": wrong, "loss_gap": wrong - aligned}
        chance = {"roc_auc": 0.5, "average_precision": misaligned.double().mean().item(), "loss_gap": 0.0}
        return metrics, chance | dict.fromkeys(("loss_aligned", "loss_misaligned"), math.log(self.num_pairs))

    def _is_misaligned(self, key: str, extra: dict[str, Any], what: str) -> bool:
        value = field_of(extra, self.field)
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return value not in ("none", "")
        if isinstance(value, int | float) and self.min_score is not None and not math.isnan(value):
            return value < self.min_score
        if isinstance(value, int | float):
            raise DataError(
                f"`field={self.field}`: sample '{key}' of {what} has the score {value}; "
                "say with `min_score` below which score a pair is misaligned"
            )
        raise DataError(
            f"`field={self.field}`: sample '{key}' of {what} has {'no such field' if value is None else repr(value)} in its "
            'JSON; it must hold true or false (misaligned or not), a word ("none" for aligned) or a score'
        )


def field_of(extra: dict[str, Any], field: str) -> Any:
    """The value that a dotted name leads to in a sample's JSON; None where there is none."""
    value: Any = extra
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
