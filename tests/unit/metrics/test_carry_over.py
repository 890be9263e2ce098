import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from timix_pl.metrics.carry_over import carry_over_chance, carry_over_metrics


def test_figures_by_hand():
    draw = np.random.default_rng(0)
    best, least, random, own, other = draw.normal(size=(5, 40)).round(1)
    metrics = carry_over_metrics(*map(torch.tensor, (best, least, own, other)))
    assert metrics == pytest.approx(
        {
            "best_over_least": np.mean([b > w for b, w in zip(best, least, strict=True)]),
            "drop_best": best.mean(),
            "drop_least": least.mean(),
            "roc_auc": roc_auc_score([1] * 40 + [0] * 40, np.concatenate([own, other])),
        }
    )
    chance = carry_over_chance(torch.tensor(random))
    assert chance == pytest.approx({"best_over_least": 0.5, "drop_best": random.mean(), "drop_least": random.mean(), "roc_auc": 0.5})


def test_windows_that_cost_the_same_are_no_success():
    same = torch.zeros(3)
    assert carry_over_metrics(same, same, same, same)["best_over_least"] == 0
