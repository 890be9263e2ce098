"""k nearest neighbours on frozen features."""

import torch
from jaxtyping import Int
from torch import Tensor

from timix_pl.core.choices import EVALUATORS
from timix_pl.evaluation.probe import LabelledFeatures, Probe
from timix_pl.evaluation.sharing import over_queries
from timix_pl.metrics.knn import knn_votes
from timix_pl.metrics.ranking import class_ranks


@EVALUATORS.register("knn")
class Knn(Probe):
    """Gives each test image the class that its nearest training images vote for."""

    title = "kNN"

    def class_ranks(self, train: LabelledFeatures, test: LabelledFeatures, num_classes: int, device: torch.device) -> Int[Tensor, " N"]:
        """See :class:`Probe`."""
        candidates = train.features.to(device), train.labels.to(device)

        def work(images: slice) -> Tensor:
            votes = knn_votes(test.features[images].to(device), *candidates, num_classes)
            return class_ranks(votes, test.labels[images].to(device)).cpu()

        return torch.cat(over_queries(len(test.labels), work))
