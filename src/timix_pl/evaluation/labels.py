"""Labelled images: the class of each, and their features."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.evaluation.batches import EvaluationBatch
from timix_pl.evaluation.evaluator import RunToEvaluate, required
from timix_pl.evaluation.model import DualEncoderLike, encode_images


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


class LabelledFeatures(NamedTuple):
    """N images; the classes that the training set has are numbered from 0 without gaps."""

    features: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    keys: list[str]


def encode_labelled(
    model: DualEncoderLike,
    train: Dataset[EvaluationItem],
    test: Dataset[EvaluationItem],
    task: str,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> tuple[LabelledFeatures, LabelledFeatures, int]:
    """Features and classes of both sets, on the CPU, and the number of classes; the same on every rank.

    Raises:
        DataError: an image has no label or cannot be read, there is but one class, or the test set has a class that the training set lacks.
    """
    read = label_reader(task)
    encoded = []
    for dataset in (train, test):
        features, found = encode_images(
            model,
            dataset,
            lambda batch: list(zip(batch.keys, read(batch), strict=True)),
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
        )
        encoded.append(LabelledFeatures(features, torch.tensor([label for _, label in found]), [key for key, _ in found]))
    classes = encoded[0].labels.unique()
    if len(classes) < 2:
        raise DataError(f"`train` has images of one class, {int(classes[0])}, and {task} needs two or more.")
    unknown = encoded[1].labels[~torch.isin(encoded[1].labels, classes)].unique().tolist()
    if unknown:
        raise DataError(
            f"`test` has images of {len(unknown)} classes that `train` has none of, the first of them "
            f"{unknown[0]}. {task} learns from the second set and is tested on the first: give sets of the same classes."
        )
    train_set, test_set = (part._replace(labels=torch.searchsorted(classes, part.labels)) for part in encoded)
    return train_set, test_set, len(classes)


PROBE_SETS: Mapping[str, str] = {"train": "data.probe_train_shards", "test": "data.zero_shot_shards"}
"""The keys of what :func:`gather_probe_sets` gives."""


def gather_probe_sets(run: RunToEvaluate) -> dict[str, Any]:
    """The labelled images that a probe learns from and is tested on.

    Raises:
        LeftOut: one of the sets is not given.
        DataError: they are the same, or class folders of different classes.
    """
    train = required(run.labelled_set("probe_train"), "data.probe_train_shards")
    test = required(run.labelled_set("zero_shot"), "data.zero_shot_shards")
    learned = run.value("data.probe_train_shards")
    if learned == run.value("data.zero_shot_shards"):
        raise DataError(
            f"data.probe_train_shards={learned} is data.zero_shot_shards too: name another set, a test on what was learned says nothing"
        )
    if isinstance(train, ImageFolder) and isinstance(test, ImageFolder) and train.class_folders != test.class_folders:
        differing = sorted(set(train.class_folders) ^ set(test.class_folders))
        raise DataError(
            f"data.probe_train_shards={train.folder} and data.zero_shot_shards={test.folder} must have the same class folders, and "
            f"{len(differing)} are only in one of them, the first of them {differing[0]}."
        )
    return {"train": train, "test": test}
