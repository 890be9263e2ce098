import numpy as np
import pytest
import torch

from timix_pl.metrics.ranking import positive_ranks
from timix_pl.metrics.zero_shot import average_templates, zero_shot_chance, zero_shot_metrics


def test_equals_sorted_class_lists_with_classes_of_unequal_size():
    draw = np.random.default_rng(0)
    images, classes = draw.normal(size=(200, 5)), draw.normal(size=(11, 5))
    labels = draw.choice([0, 1, 2, 4, 5, 6, 7, 9], size=200)  # 3, 8 and 10 have no images
    images += 0.5 * classes[labels]

    ranking = np.argsort(-(images @ classes.T), axis=1)
    right = ranking[:, 0] == labels
    expected = {
        "top_1": right.mean(),
        "top_5": np.mean([label in row[:5] for label, row in zip(labels, ranking, strict=True)]),
        "mean_per_class": np.mean([right[labels == label].mean() for label in np.unique(labels)]),
    }
    ranks = positive_ranks(torch.tensor(images), torch.tensor(classes), torch.tensor(labels), torch.arange(11))
    assert zero_shot_metrics(ranks, torch.tensor(labels)) == pytest.approx(expected)


def test_templates_are_averaged_then_normalised_again():
    features = np.random.default_rng(0).normal(size=(3, 4, 6))
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    for got, of_class in zip(average_templates(torch.tensor(features)).numpy(), features, strict=True):
        summed = of_class[0] + of_class[1] + of_class[2] + of_class[3]
        np.testing.assert_allclose(got, summed / np.sqrt((summed**2).sum()))


def test_chance():
    assert zero_shot_chance(20) == {"top_1": 0.05, "top_5": 0.25, "mean_per_class": 0.05}
    assert zero_shot_chance(3)["top_5"] == 1
