import math

import numpy as np
import pytest
import torch

from timix_pl.metrics.separation import roc_auc


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, few ties
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(levels):
    rng = np.random.default_rng(levels)
    scores, positive = rng.integers(0, levels, 60), rng.random(60) < 0.3
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert roc_auc(torch.from_numpy(scores).double(), torch.from_numpy(positive)) == pytest.approx(np.mean(pairs))


def test_a_model_that_tells_nothing_apart_is_at_chance():
    assert roc_auc(torch.zeros(9), torch.arange(9) < 2) == 0.5


def test_what_cannot_be_ordered_is_undefined():
    assert math.isnan(roc_auc(torch.tensor([0.1, math.nan]), torch.tensor([True, False])))
    assert math.isnan(roc_auc(torch.tensor([0.1, 0.2]), torch.tensor([True, True])))
