"""A linear probe on frozen features."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.distributed import gather_objects
from timix_pl.core.randomness import seed_of
from timix_pl.evaluation.probe import LabelledFeatures, Probe
from timix_pl.evaluation.sharing import QUERIES_PER_TASK, over_ranks
from timix_pl.metrics.linear_probe import LinearClassifier, fit_linear, search_inverse_penalty
from timix_pl.metrics.ranking import class_ranks

VALIDATION_SHARE = 0.2


@EVALUATORS.register("linear_probe")
class LinearProbe(Probe):
    """Fits a linear classifier to the features of the training images and classifies the test images with it.

    The regularisation is chosen on a fifth of the training images, selected by their keys. Then all of them are fitted, as in Radford et
    al. 2021, appendix A.3.
    """

    title = "linear probe"

    def class_ranks(self, train: LabelledFeatures, test: LabelledFeatures, num_classes: int, device: torch.device) -> Int[Tensor, " N"]:
        """See :class:`Probe`."""
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
        ranks: Tensor = gather_objects(own_ranks.cpu())[0]
        return ranks


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
