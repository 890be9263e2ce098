import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as confusion_of_scikit_learn

from timix_pl.metrics.ranking import positive_ranks
from timix_pl.metrics.zero_shot import (
    average_templates,
    confusion_matrix,
    most_confused,
    predicted_classes,
    zero_shot_chance,
    zero_shot_metrics,
)


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


def test_confusion_is_that_of_scikit_learn_and_its_diagonal_is_top_1():
    draw = np.random.default_rng(0)
    images, classes, labels = draw.normal(size=(200, 5)), draw.normal(size=(7, 5)), draw.integers(0, 7, 200)
    predicted = predicted_classes(*map(torch.tensor, (images, classes, labels)))
    confusion = confusion_matrix(torch.tensor(labels), predicted, 7)
    np.testing.assert_array_equal(confusion, confusion_of_scikit_learn(labels, (images @ classes.T).argmax(axis=1)))


def test_where_classes_tie_the_wrong_one_is_predicted_as_the_metrics_count_it():
    classes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 2, 2])
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [torch.nan, 0.0]])
    assert predicted_classes(images, classes, labels).tolist()[:3] == [1, 0, 2]
    right = predicted_classes(images, classes, labels) == labels
    assert torch.equal(right, positive_ranks(images, classes, labels, torch.arange(3)) == 1)


@pytest.mark.parametrize(("apart", "predicted"), [(1e-7, 1), (1e-5, 0)])
def test_only_cosines_next_to_each_other_tie(apart, predicted):
    assert predicted_classes(torch.ones(1, 1), torch.tensor([[0.5], [0.5 - apart]]), torch.tensor([0])).item() == predicted


def test_classes_with_the_same_features_are_never_right():
    draw = torch.Generator().manual_seed(0)
    images, same = (torch.nn.functional.normalize(torch.randn(rows, 512, generator=draw), dim=1) for rows in (9, 1))
    labels = torch.arange(9)
    assert (predicted_classes(images, same.expand(9, 512).contiguous(), labels) != labels).all()


def test_most_confused_classes_come_in_their_order():
    confusion = torch.tensor([[50, 0, 0, 0], [0, 3, 2, 0], [0, 0, 4, 0], [1, 0, 0, 9]])
    assert most_confused(confusion, 2).tolist() == [1, 2]
    assert most_confused(confusion, 3).tolist() == [0, 1, 2]  # 0 and 3 have one mistake each; of 0 there are more images
    assert most_confused(confusion, 9).tolist() == [0, 1, 2, 3]
