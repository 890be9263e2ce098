"""Classification by the nearest training images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def knn_votes(
    features: Float[Tensor, "N D"],
    train_features: Float[Tensor, "M D"],
    train_labels: Int[Tensor, " M"],
    num_classes: int,
    *,
    k: int = 20,
    temperature: float = 0.07,
    max_scores: int = 2**24,
) -> Float[Tensor, "N C"]:
    """Votes for each row and class: the sum of exp(cosine / temperature) over the row's k nearest training rows that are in the class.

    Args:
        features, train_features: L2-normalised.
        k: number of nearest rows; if there are fewer training rows, all vote.
        max_scores: largest number of cosines computed at once, to limit memory. At least one row of ``features`` is computed at once.
    Source: Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4; k as in DINO (Caron et
        al. 2021).
    """
    k = min(k, len(train_features))
    votes = []
    for rows in features.split(max(1, max_scores // max(len(train_features), k * num_classes))):
        nearest = (rows @ train_features.T).topk(k, dim=1)
        is_of_class = F.one_hot(train_labels[nearest.indices], num_classes).to(features.dtype)
        votes.append(((nearest.values / temperature).exp()[:, None, :] @ is_of_class)[:, 0])
    return torch.cat(votes)
