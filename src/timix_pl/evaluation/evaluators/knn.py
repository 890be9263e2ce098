"""k nearest neighbours on frozen features."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluator import Evaluator, RunToEvaluate
from timix_pl.evaluation.labels import PROBE_SETS, encode_labelled, gather_probe_sets
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import over_queries
from timix_pl.metrics.knn import knn_votes
from timix_pl.metrics.ranking import class_ranks
from timix_pl.metrics.zero_shot import ZERO_SHOT_METRICS, zero_shot_chance, zero_shot_metrics


@EVALUATORS.register("knn")
class Knn(Evaluator):
    """Gives each image the class that its nearest training images vote for.

    Args:
        train, test: images whose ``extra["label"]`` is the number of their class, from 0.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
    """

    title = "kNN"
    gathered = PROBE_SETS
    metrics = ZERO_SHOT_METRICS

    def __init__(self, train: Dataset[EvaluationItem], test: Dataset[EvaluationItem], *, batch_size: int, num_workers: int = 0):
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
        candidates = train.features.to(device), train.labels.to(device)

        def work(images: slice) -> Tensor:
            votes = knn_votes(test.features[images].to(device), *candidates, num_classes)
            return class_ranks(votes, test.labels[images].to(device)).cpu()

        ranks = torch.cat(over_queries(len(test.labels), work))
        return named(self, zero_shot_metrics(ranks, test.labels), zero_shot_chance(num_classes))
