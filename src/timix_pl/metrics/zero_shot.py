"""Zero-shot classification: the predicted class is the one whose text feature is most similar to the image feature."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from timix_pl.core.metric import Metric, Unit
from timix_pl.metrics.ranking import TIE, top_k_share

ZERO_SHOT_METRICS = {
    "top_1": Metric(Unit.share, higher_is_better=True, label="top 1", chance="guessing a class"),
    "top_5": Metric(Unit.share, higher_is_better=True, label="top 5", chance="guessing five classes"),
    "mean_per_class": Metric(Unit.share, higher_is_better=True, label="mean per class", chance="guessing a class"),
}
"""Descriptions of the metrics of ``zero_shot_metrics``, for all evaluations that classify."""


def average_templates(text_features: Float[Tensor, "C K D"]) -> Float[Tensor, "C D"]:
    """One L2-normalised feature per class: the mean over its K templates, normalised again.

    Args:
        text_features: L2-normalised features of C classes in K templates each.
    Source: Radford et al. 2021, section 3.1.4.
    """
    return F.normalize(text_features.mean(dim=1), dim=-1)


def zero_shot_metrics(ranks: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> dict[str, float]:
    """Top-1 and top-5 accuracy over images and the mean over classes of their top-1 accuracy, all 0 to 1.

    Args:
        ranks: rank of the true class among all classes, from 1.
        labels: the true class; classes without images are left out of the mean over classes.
    """
    num_images = torch.bincount(labels)
    num_right = torch.bincount(labels, weights=(ranks == 1).double())
    present = num_images > 0
    return {
        "top_1": top_k_share(ranks, 1),
        "top_5": top_k_share(ranks, 5),
        "mean_per_class": (num_right[present] / num_images[present]).mean().item(),
    }


def predicted_classes(
    image_features: Float[Tensor, "N D"], class_features: Float[Tensor, "C D"], labels: Int[Tensor, " N"]
) -> Int[Tensor, " N"]:
    """Each image's predicted class, the one with the highest cosine. A tie with the true class counts as wrong, as in ``positive_ranks``.

    Args:
        labels: the true classes.
    """
    scores = image_features @ class_features.T
    of_true = scores.gather(1, labels[:, None])[:, 0]
    of_wrong, wrong = scores.scatter(1, labels[:, None], -torch.inf).max(dim=1)
    return torch.where(of_wrong < of_true - TIE, labels, wrong)


def confusion_matrix(labels: Int[Tensor, " N"], predicted: Int[Tensor, " N"], num_classes: int) -> Int[Tensor, "C C"]:
    """The number of images of class i (row) that were predicted as class j (column)."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def most_confused(confusion: Int[Tensor, "C C"], limit: int) -> Int[Tensor, " c"]:
    """At most ``limit`` classes, in ascending order: those with the most errors (as true or predicted class); ties: with more images."""
    num_images, num_right = confusion.sum(dim=1), confusion.diagonal()
    num_mistakes = num_images + confusion.sum(dim=0) - 2 * num_right
    worst_first = (num_mistakes * (num_images.sum() + 1) + num_images).argsort(descending=True, stable=True)
    return worst_first[:limit].sort().values


def zero_shot_chance(num_classes: int) -> dict[str, float]:
    """The metrics of random guesses; names as in ``zero_shot_metrics``."""
    return {"top_1": 1 / num_classes, "top_5": min(5 / num_classes, 1.0), "mean_per_class": 1 / num_classes}
