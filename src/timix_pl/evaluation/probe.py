"""Probes: classifiers on frozen features."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.evaluation.evaluator import Evaluator, RunToEvaluate, required
from timix_pl.evaluation.labels import label_reader
from timix_pl.evaluation.model import DualEncoderLike, encode_images, evaluating
from timix_pl.evaluation.results import named
from timix_pl.metrics.zero_shot import ZERO_SHOT_METRICS, zero_shot_chance, zero_shot_metrics


class LabelledFeatures(NamedTuple):
    """N images; the classes that the training set has are numbered from 0 without gaps."""

    features: Float[Tensor, "N D"]
    labels: Int[Tensor, " N"]
    keys: list[str]


class Probe(Evaluator):
    """Learns to classify the features of training images, and classifies those of test images.

    Args:
        train, test: images whose ``extra["label"]`` is the number of their class, from 0.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
    """

    gathered: ClassVar[Mapping[str, str]] = {"train": "data.probe_train_shards", "test": "data.zero_shot_shards"}
    metrics = ZERO_SHOT_METRICS

    def __init__(self, train: Dataset[EvaluationItem], test: Dataset[EvaluationItem], *, batch_size: int, num_workers: int = 0):
        self.train, self.test, self.batch_size, self.num_workers = train, test, batch_size, num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """The labelled images that the probe learns from and is tested on.

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

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Top-1 and top-5 accuracy and mean accuracy per class; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no label or cannot be read, the training set has only one class, or the test set has a class that the
                training set lacks.
        """
        with evaluating(model):
            train, test = self._encode(model, self.train, device), self._encode(model, self.test, device)
        classes = train.labels.unique()
        if len(classes) < 2:
            raise DataError(f"`train` has images of one class, {int(classes[0])}, and {self.choice} needs two or more.")
        unknown = test.labels[~torch.isin(test.labels, classes)].unique().tolist()
        if unknown:
            raise DataError(
                f"`test` has images of {len(unknown)} classes that `train` has none of, the first of them {unknown[0]}. "
                f"{self.choice} learns from `train` and is tested on `test`: give sets of the same classes."
            )
        train, test = (part._replace(labels=torch.searchsorted(classes, part.labels)) for part in (train, test))
        ranks = self.class_ranks(train, test, len(classes), device)
        return named(self, zero_shot_metrics(ranks, test.labels), zero_shot_chance(len(classes)))

    def _encode(self, model: DualEncoderLike, dataset: Dataset[EvaluationItem], device: torch.device) -> LabelledFeatures:
        read = label_reader(self.choice)
        features, found = encode_images(
            model,
            dataset,
            lambda batch: list(zip(batch.keys, read(batch), strict=True)),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=device,
        )
        return LabelledFeatures(features, torch.tensor([label for _, label in found]), [key for key, _ in found])

    @abstractmethod
    def class_ranks(self, train: LabelledFeatures, test: LabelledFeatures, num_classes: int, device: torch.device) -> Int[Tensor, " N"]:
        """The rank of the right class of each test image, from 1, on the CPU; the same on every rank.

        Args:
            train, test: features and labels, on the CPU.
            device: where to compute.
        """
