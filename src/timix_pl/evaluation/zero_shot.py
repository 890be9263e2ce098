"""Zero-shot classification."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.model import DualEncoderLike, encode_texts, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import shared_positive_ranks
from timix_pl.metrics.zero_shot import average_templates, zero_shot_chance, zero_shot_metrics


class ZeroShot:
    """Gives each image the class whose descriptions it resembles most.

    Args:
        dataset: images whose ``extra["label"]`` is the number of their class.
        classes: class names; class n is ``classes[n]``.
        templates: how a class name becomes a caption, e.g. ``"a photo of a {}."``; a class is the mean of its captions' features.
        batch_size: images, and captions, per forward pass on each rank.
        num_workers: loader processes per rank.
        name: what the metrics' names begin with.
    Raises:
        DataError: there are no classes or templates, or a template has no ``{}``.
    """

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        classes: Sequence[str],
        templates: Sequence[str],
        *,
        batch_size: int,
        num_workers: int = 0,
        name: str = "zero_shot",
    ):
        if not classes or not templates:
            raise DataError(
                f"Zero-shot classification needs class names and templates, and was given {len(classes)} and {len(templates)}. "
                'List them in classes.json beside the shards: {"classes": ["cat", ...], "templates": ["a photo of a {}.", ...]}.'
            )
        for template in templates:
            if "{}" not in template:
                raise DataError(f"Template {template!r} has no {{}} where the class name belongs; mend it in classes.json.")
        self.dataset = dataset
        self.captions = [template.replace("{}", class_name) for class_name in classes for template in templates]
        self.num_classes = len(classes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.name = name

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Top-1 and top-5 accuracy and mean accuracy per class; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no label, one that is not the number of a class, or cannot be read.
        """

        def encode(batch: EvaluationBatch) -> tuple[Tensor, list[int]]:
            labels = [self._label(key, extra) for key, extra in zip(batch.keys, batch.extra, strict=True)]
            return model.encode_image(batch.images.to(device)).float().cpu(), labels

        with evaluating(model):
            encoded = map_batches(self.dataset, encode, batch_size=self.batch_size, num_workers=self.num_workers)
            image_features = torch.cat([features for features, _ in encoded])
            labels = torch.tensor([label for _, batch in encoded for label in batch])
            text_features = encode_texts(model, self.captions, self.batch_size, device)
            class_features = average_templates(text_features.unflatten(0, (self.num_classes, -1)))
            ranks = shared_positive_ranks(image_features, class_features, labels, torch.arange(self.num_classes), device)

        return named(self.name, zero_shot_metrics(ranks, labels), zero_shot_chance(self.num_classes))

    def _label(self, key: str, extra: dict) -> int:
        label = extra.get("label")
        if not isinstance(label, int) or not 0 <= label < self.num_classes:
            raise DataError(
                f"Sample '{key}' has the label {label!r}, but zero-shot classification needs the number of its class, "
                f'0 to {self.num_classes - 1}. Write it into {key}.json as "label", mend classes.json, '
                "or leave zero_shot out of evaluation.tasks."
            )
        return label
