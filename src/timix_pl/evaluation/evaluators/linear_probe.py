"""A linear probe on frozen features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.distributed import gather_objects
from timix_pl.core.randomness import seed_of
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluator import Evaluator, RunToEvaluate
from timix_pl.evaluation.labels import PROBE_SETS, encode_labelled, gather_probe_sets
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import QUERIES_PER_TASK, over_ranks
from timix_pl.metrics.linear_probe import LinearClassifier, fit_linear, search_inverse_penalty
from timix_pl.metrics.ranking import class_ranks
from timix_pl.metrics.zero_shot import ZERO_SHOT_METRICS, zero_shot_chance, zero_shot_metrics

VALIDATION_SHARE = 0.2


@EVALUATORS.register("linear_probe")
class LinearProbe(Evaluator):
    """Fits a linear classifier to the features of the training images and classifies the test images with it.

    The regularisation is chosen on a fifth of the training images, selected by their keys. Then all of them are fitted, as in Radford et
    al. 2021, appendix A.3.

    Args:
        train, test: images whose ``extra["label"]`` is the number of their class, from 0.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
    """

    title = "linear probe"
    gathered = PROBE_SETS
    metrics = ZERO_SHOT_METRICS

    def __init__(
        self,
        train: Dataset[EvaluationItem],
        test: Dataset[EvaluationItem],
        *,
        batch_size: int,
        num_workers: int = 0,
    ):
        self.train, self.test = train, test
        self.batch_size = batch_size
        self.num_workers = num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        return gather_probe_sets(run)

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Top-1 and top-5 accuracy and mean accuracy per class; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no label or cannot be read, or the two sets are not of the same classes.
        """
        with evaluating(model):
            train, test, num_classes = encode_labelled(
                model, self.train, self.test, self.choice, batch_size=self.batch_size, num_workers=self.num_workers, device=device
            )
        features, labels = train.features.to(device), train.labels.to(device)
        fitted, validation = (rows.to(device) for rows in split_by_key(train.keys))
        to_fit, to_validate = (features[fitted], labels[fitted]), (features[validation], labels[validation])

        def accuracy(inverse_penalty: float) -> float:
            ranks = _class_ranks(fit_linear(*to_fit, num_classes, inverse_penalty), *to_validate)
            return (ranks == 1).double().mean().item()

        def accuracies(values: list[float]) -> list[float]:
            return over_ranks(len(values), lambda share: [accuracy(values[number]) for number in share])

        classifier = fit_linear(features, labels, num_classes, search_inverse_penalty(accuracies))
        own_ranks = _class_ranks(classifier, test.features.to(device), test.labels.to(device))
        ranks = gather_objects(own_ranks.cpu())[0]
        return named(self, zero_shot_metrics(ranks, test.labels), zero_shot_chance(num_classes))


def split_by_key(keys: Sequence[str]) -> tuple[Int[Tensor, " fitted"], Int[Tensor, " validation"]]:
    """The positions of what is fitted and of a fifth for validation, one at least.

    They are drawn by the keys: neither the order of the images nor the number of ranks matters.
    """
    draws = np.array([seed_of("linear_probe", key) for key in keys], dtype=np.uint64)
    order = torch.from_numpy(draws.argsort(kind="stable"))
    num_validation = max(1, round(len(keys) * VALIDATION_SHARE))
    return order[num_validation:].sort().values, order[:num_validation].sort().values


def _class_ranks(classifier: LinearClassifier, features: Float[Tensor, "N D"], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    chunks = zip(features.split(QUERIES_PER_TASK), labels.split(QUERIES_PER_TASK), strict=True)
    return torch.cat([class_ranks(rows @ classifier.weight.T + classifier.bias, of_rows) for rows, of_rows in chunks])
