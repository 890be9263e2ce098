"""Zero-shot classification."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.class_names import class_names
from timix_pl.evaluation.evaluator import Evaluator, RunToEvaluate, required
from timix_pl.evaluation.labels import label_reader
from timix_pl.evaluation.model import DualEncoderLike, encode_images, encode_texts, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import shared_positive_ranks, shared_predicted_classes
from timix_pl.metrics.zero_shot import (
    ZERO_SHOT_METRICS,
    average_templates,
    confusion_matrix,
    most_confused,
    zero_shot_chance,
    zero_shot_metrics,
)

CLASSES_SHOWN = 30
"""Of the confusion matrix, in the result's examples."""


@EVALUATORS.register("zero_shot")
class ZeroShot(Evaluator):
    """Gives each image the class whose descriptions it resembles most.

    Args:
        dataset: images whose ``extra["label"]`` is the number of their class.
        classes: class names; class n is ``classes[n]``.
        templates: how a class name becomes a caption, e.g. ``"a photo of a {}."``; a class is the mean of its captions' features.
        batch_size: images, and captions, per forward pass on each rank.
        num_workers: loader processes per rank.
    Raises:
        DataError: there are no classes or templates, or a template has no ``{}``.
    """

    title = "zero-shot"
    gathered: ClassVar[Mapping[str, str]] = {
        "dataset": "data.zero_shot_shards",
        "classes": "evaluation.classes",
        "templates": "evaluation.templates",
    }
    metrics = ZERO_SHOT_METRICS

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        classes: Sequence[str],
        templates: Sequence[str],
        *,
        batch_size: int,
        num_workers: int = 0,
    ):
        if not classes or not templates:
            raise DataError(
                f"Zero-shot classification needs class names and templates, and was given {len(classes)} and {len(templates)}. "
                'List them in classes.json beside the shards: {"classes": ["cat", ...], "templates": ["a photo of a {}.", ...]}.'
            )
        for template in templates:
            if "{}" not in template:
                raise DataError(
                    f"Template {template!r} has no {{}} where the class name belongs; repair it in classes.json or in `templates`."
                )
        self.dataset = dataset
        self.captions = [template.replace("{}", class_name) for class_name in classes for template in templates]
        self.classes = list(classes)
        self.batch_size = batch_size
        self.num_workers = num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        dataset = required(run.labelled_set("zero_shot"), cls.gathered["dataset"])
        classes, templates = class_names(dataset, *(run.value(cls.gathered[name]) for name in ("classes", "templates")))
        return {"dataset": dataset, "classes": classes, "templates": templates}

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Top-1 and top-5 accuracy, mean accuracy per class, and the confusion of 30 classes as an example; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no label, one that is not the number of a class, or cannot be read.
        """

        label = label_reader("zero_shot", len(self.classes))
        with evaluating(model):
            image_features, found = encode_images(
                model, self.dataset, label, batch_size=self.batch_size, num_workers=self.num_workers, device=device
            )
            text_features = encode_texts(model, self.captions, self.batch_size, device)
        labels, classes = torch.tensor(found), torch.arange(len(self.classes))
        class_features = average_templates(text_features.unflatten(0, (len(classes), -1)))
        ranks = shared_positive_ranks(image_features, class_features, labels, classes, device)
        predicted = shared_predicted_classes(image_features, class_features, labels, device)

        confusion = confusion_matrix(labels, predicted, len(classes))
        shown = most_confused(confusion, CLASSES_SHOWN)
        example = {
            "confusion": confusion[shown][:, shown].tolist(),
            "num_images": confusion[shown].sum(1).tolist(),  # those called a class that is not shown too
            "classes": [self.classes[number] for number in shown.tolist()],
        }
        return named(self, zero_shot_metrics(ranks, labels), zero_shot_chance(len(classes)), [example])
