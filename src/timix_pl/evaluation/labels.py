"""The class of each sample."""

from collections.abc import Callable
from typing import Any

from timix_pl.core.errors import DataError
from timix_pl.evaluation.batches import EvaluationBatch


def label_reader(task: str, num_classes: int | None = None) -> Callable[[EvaluationBatch], list[int]]:
    """A function that returns the ``extra["label"]`` of each sample of a batch.

    Args:
        task: what needs the labels, for messages.
        num_classes: how many classes have names; None: labels may be any number from 0.
    Returns:
        It raises a DataError where a sample has no label, or one that is not the number of a class.
    """

    def read(batch: EvaluationBatch) -> list[int]:
        return [_label(key, extra, task, num_classes) for key, extra in zip(batch.keys, batch.extra, strict=True)]

    return read


def _label(key: str, extra: dict[str, Any], task: str, num_classes: int | None) -> int:
    label = extra.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label and (num_classes is None or label < num_classes):
        return label
    if num_classes is None:
        rule, way_out = "0 or more", ""
    else:
        rule, way_out = f"0 to {num_classes - 1}, since {num_classes} classes have names", "give all classes names (classes.json, evaluation.classes), "
    raise DataError(
        f"Sample '{key}' has the label {label!r}, but {task} needs the number of its class, {rule}. "
        f'Write it into {key}.json as "label", {way_out}or leave {task} out of evaluation.tasks.'
    )
