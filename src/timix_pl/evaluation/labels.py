"""The classes of labelled images."""

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
    if num_classes is None:
        rule, names = "0 or more", ""
    else:
        rule = f"0 to {num_classes - 1}, as {num_classes} classes have names"
        names = "give every class a name (classes.json, `classes`), "

    def read_one(key: str, extra: dict[str, Any]) -> int:
        label = extra.get("label")
        if not isinstance(label, int) or isinstance(label, bool) or label < 0 or (num_classes is not None and label >= num_classes):
            raise DataError(
                f"Sample '{key}' has the label {label!r}, but {task} needs the number of its class, {rule}. "
                f'Write it into {key}.json as "label", {names}or leave {task} out of `evaluators`.'
            )
        return label

    return lambda batch: [read_one(key, extra) for key, extra in zip(batch.keys, batch.extra, strict=True)]
