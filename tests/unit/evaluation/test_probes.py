"""The linear probe and kNN on features that are read off the pictures."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from tests.unit.evaluation.fakes import Items, item
from timix_pl.core.errors import DataError
from timix_pl.evaluation.evaluators.knn import Knn
from timix_pl.evaluation.evaluators.linear_probe import LinearProbe, split_by_key
from timix_pl.metrics.linear_probe import search_inverse_penalty

CPU = torch.device("cpu")
CLASSES = [1, 4, 5, 9]  # numbers have gaps


class PixelModel(nn.Module):
    """Features are pixels, centred and normalised."""

    def encode_image(self, images):
        return nn.functional.normalize(images[:, 0, :2, :4].flatten(1).float() - 128, dim=1)


def labelled(seed, num):
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, 3, 4, 8))
    items = []
    for n in range(num):
        pixels = np.clip(128 + 25 * (centres[n % 4] + 1.3 * draw.normal(size=(3, 4, 8))), 0, 255).astype(np.uint8)
        items.append(item(n, label=CLASSES[n % 4])._replace(image=torch.tensor(pixels), key=f"set{seed}/{n}"))
    return items


TRAIN, TEST = labelled(0, 83), labelled(1, 61)


def arrays(items):
    return PixelModel().encode_image(torch.stack([one.image for one in items])).numpy(), np.array([one.extra["label"] for one in items])


def run(kind, train=TRAIN, test=TEST, **options):
    return kind(Items(train), Items(test), **{"batch_size": 16, **options}).run(PixelModel(), CPU)


def test_linear_probe_is_that_of_scikit_learn_with_the_penalty_chosen_on_the_same_fifth():
    (rows, labels), (test_rows, test_labels) = arrays(TRAIN), arrays(TEST)
    fitted, validation = (part.numpy() for part in split_by_key([one.key for one in TRAIN]))

    def fit(value, part):
        return LogisticRegression(C=value, max_iter=2000, tol=1e-6).fit(rows[part], labels[part])

    chosen = search_inverse_penalty(lambda values: [fit(value, fitted).score(rows[validation], labels[validation]) for value in values])
    reference = fit(chosen, slice(None)).predict(test_rows)
    metrics = run(LinearProbe).metrics
    assert metrics["linear_probe/top_1"] == pytest.approx((reference == test_labels).mean()) and 0.4 < metrics["linear_probe/top_1"] < 1
    per_class = [(reference == test_labels)[test_labels == label].mean() for label in CLASSES]
    assert metrics["linear_probe/mean_per_class"] == pytest.approx(np.mean(per_class))
    assert metrics["linear_probe/top_5"] == 1


def test_knn_is_that_of_scikit_learn():
    (rows, labels), (test_rows, test_labels) = arrays(TRAIN), arrays(TEST)
    reference = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)).fit(rows, labels)
    metrics = run(Knn).metrics
    assert metrics["knn/top_1"] == pytest.approx(reference.score(test_rows, test_labels)) and 0.4 < metrics["knn/top_1"] < 1


@pytest.mark.parametrize("kind", [LinearProbe, Knn])
def test_chance_counts_the_classes_there_are(kind):
    result = run(kind)
    assert list(result.chance.values()) == [1 / 4, 1, 1 / 4] and result.chance.keys() == result.metrics.keys()


def test_the_split_follows_the_keys_alone():
    keys = [f"k{n}" for n in range(101)]
    fitted, validation = split_by_key(keys)
    assert sorted([*fitted.tolist(), *validation.tolist()]) == list(range(101)) and len(validation) == 20
    shuffled = np.random.default_rng(0).permutation(101)
    again = split_by_key([keys[n] for n in shuffled])[1]
    assert sorted(shuffled[again]) == validation.tolist()
    assert [len(part) for part in split_by_key(["a", "b"])] == [1, 1]


@pytest.mark.parametrize("kind", [LinearProbe, Knn])
def test_labels_that_cannot_be_used_are_named(kind):
    with pytest.raises(DataError, match=r"'key0' has the label None.*0 or more.*`evaluators`"):
        run(kind, train=[*TRAIN, item(0)])
    with pytest.raises(DataError, match=r"`test` has images of 1 classes that `train` has none of.* 7\."):
        run(kind, test=[*TEST, item(0, label=7)])
    with pytest.raises(DataError, match=r"images of one class, 1,"):
        run(kind, train=TRAIN[:1], test=TRAIN[:1])
