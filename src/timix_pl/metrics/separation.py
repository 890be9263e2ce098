"""How well scores tell two kinds apart."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def roc_auc(scores: Float[Tensor, " n"], is_positive: Bool[Tensor, " n"]) -> float:
    """The probability that a positive scores higher than a negative, ties counted half; NaN where a score is, or one kind is missing.

    Source: Hanley and McNeil 1982; equal to scikit-learn's ``roc_auc_score``.
    """
    positives, negatives = scores[is_positive], scores[~is_positive].sort().values
    if not len(positives) or not len(negatives) or scores.isnan().any():
        return math.nan
    below = torch.searchsorted(negatives, positives).double()
    up_to = torch.searchsorted(negatives, positives, right=True).double()
    return ((below + up_to).mean() / (2 * len(negatives))).item()
