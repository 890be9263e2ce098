import numpy as np
import pytest
import torch

from timix_pl.metrics.ranking import roc_auc


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, few ties
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(levels):
    rng = np.random.default_rng(levels)
    scores, positive = rng.integers(0, levels, 60), rng.random(60) < 0.3
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert roc_auc(torch.from_numpy(scores[positive]).double(), torch.from_numpy(scores[~positive]).double()) == pytest.approx(
        np.mean(pairs)
    )


def test_a_model_that_tells_nothing_apart_is_at_chance_and_one_without_scores_below_it():
    assert roc_auc(torch.zeros(2), torch.zeros(7)) == 0.5
    assert roc_auc(torch.full((2,), torch.nan), torch.full((7,), torch.nan)) == 0
