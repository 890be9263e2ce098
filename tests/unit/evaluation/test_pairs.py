"""Noise and mutual information on a real model, against the model asked about one sample at a time."""

import math

import numpy as np
import pytest
import torch

from tests.tiny import random_captions, random_images, tiny_model
from tests.unit.evaluation.fakes import Items
from timix_pl.core.errors import DataError
from timix_pl.core.randomness import permutation
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluators.mutual_information import MutualInformation
from timix_pl.evaluation.evaluators.noise import Noise
from timix_pl.mixing.mixer import Mixer
from timix_pl.mixing.strategies.timix import TiMix

CPU = torch.device("cpu")


def pairs(count, seed=0, **extra):
    images, captions = random_images(count, seed), random_captions(2 * count, seed)
    return Items(
        [
            EvaluationItem(f"k{n}", images[n], tuple(captions[2 * n : 2 * n + 2]), (), {name: value(n) for name, value in extra.items()})
            for n in range(count)
        ]
    )


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@torch.no_grad()
def features(model, items):
    images = torch.cat([model.encode_image(item.image[None]) for item in items]).double().numpy()
    texts = torch.cat([model.encode_text(model.tokenizer([item.captions[0]])) for item in items]).double().numpy()
    return images, texts, float(model.logit_scale.exp())


def log_softmax(logits, axis):
    return logits - np.log(np.exp(logits).sum(axis, keepdims=True))


def batches(dataset, size):
    order = permutation(len(dataset), "pairs")
    return [[dataset[int(n)] for n in order[start : start + size]] for start in range(0, len(dataset) - size + 1, size)]


def bound(model, dataset, size):
    losses = []
    for batch in batches(dataset, size):
        images, texts, scale = features(model, batch)
        logits = scale * images @ texts.T
        losses.append(-(log_softmax(logits, 0).diagonal() + log_softmax(logits, 1).diagonal()) / 2)
    return math.log(size) - np.concatenate(losses).mean()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_bound_is_log_k_less_the_loss_of_whole_batches(model, batch_size):
    held_out, train = pairs(23), pairs(11, seed=1)
    metrics, chance, *_ = MutualInformation(held_out, train, num_pairs=5, batch_size=batch_size).run(model.train(), CPU)
    assert model.training
    model.eval()
    assert metrics["mutual_information/held_out"] == pytest.approx(bound(model, held_out, 5), abs=1e-5)
    assert metrics["mutual_information/train"] == pytest.approx(bound(model, train, 5), abs=1e-5)
    assert metrics["mutual_information/gap"] == pytest.approx(bound(model, train, 5) - bound(model, held_out, 5), abs=1e-5)
    assert metrics["mutual_information/ceiling"] == math.log(5) and chance["mutual_information/train"] == 0


class Blend(Mixer):
    """A mixer that writes down what it was asked to mix."""

    def __init__(self):
        self.plans = []

    def plan(self, chosen, scores=None):
        self.plans.append((chosen.rows, chosen.partners))
        return chosen.plan(torch.full((len(chosen.rows),), 0.7))

    def apply(self, images, plan):
        return 0.7 * images[plan.rows] + 0.3 * images[plan.partners]


@pytest.mark.parametrize("num_parts", [1, 2])
def test_the_bound_of_mixed_images_is_log_k_less_one_less_their_cross_entropy(num_parts, model):
    dataset, mixer = pairs(13), Blend()
    metrics, chance, *_ = MutualInformation(dataset, None, mixer=mixer, num_pairs=6, batch_size=6 // num_parts).run(model, CPU)
    parts = [torch.stack(plan) + 6 // num_parts * (number % num_parts) for number, plan in enumerate(mixer.plans)]
    losses = []
    for number, batch in enumerate(batches(dataset, 6)):
        rows, partners = torch.cat(parts[number * num_parts : (number + 1) * num_parts], dim=1)
        assert sorted(rows.tolist()) == sorted(partners.tolist()) == list(range(6)) and (rows != partners).all()
        x = model.normalise(torch.stack([item.image for item in batch]))
        with torch.no_grad():
            mixed = torch.nn.functional.normalize(model.image(0.7 * x[rows] + 0.3 * x[partners]).image_features, dim=1).double().numpy()
        _, texts, scale = features(model, batch)
        found = log_softmax(scale * mixed @ texts.T, 1)
        losses += [-0.7 * found[m, rows[m]] - 0.3 * found[m, partners[m]] for m in range(6)]
    assert metrics["mutual_information/held_out_mixed"] == pytest.approx(math.log(5) - np.mean(losses), abs=1e-5)
    entropy = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    assert metrics["mutual_information/ceiling_mixed"] == pytest.approx(math.log(5) - entropy, abs=1e-6)
    assert chance["mutual_information/held_out_mixed"] == pytest.approx(math.log(5 / 6))
    assert "mutual_information/gap" not in metrics


def test_an_odd_number_of_pairs_is_mixed_whatever_the_batch_size(model):
    """Parts of a batch have at least two pairs, and every mixed image its own caption and its partner's."""
    mixer = Blend()
    MutualInformation(pairs(7), None, mixer=mixer, num_pairs=7, batch_size=1).run(model, CPU)
    assert sorted(len(rows) for rows, _ in mixer.plans) == [2, 2, 3]


class BlendByTurns(Blend):
    """Blends with other shares each time."""

    def plan(self, chosen, scores=None):
        plan = super().plan(chosen)
        return plan._replace(lam=torch.full((len(chosen.rows),), [0.5, 0.9][len(self.plans) - 1]))


def test_the_ceiling_of_mixed_images_is_one_for_both_sets(model):
    metrics = MutualInformation(pairs(6), pairs(6, seed=1), mixer=BlendByTurns(), num_pairs=6, batch_size=6).run(model, CPU).metrics
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)  # of the training pairs, whose bound can reach more
    assert metrics["mutual_information/ceiling_mixed"] == pytest.approx(math.log(5) - entropy, abs=1e-6)


def test_timix_asks_the_head(model):
    timix = TiMix(model.patch_grid)
    metrics = MutualInformation(pairs(8), pairs(8, seed=1), mixer=timix, num_pairs=4, batch_size=4).run(model, CPU).metrics
    assert metrics["mutual_information/gap_mixed"] == pytest.approx(
        metrics["mutual_information/train_mixed"] - metrics["mutual_information/held_out_mixed"]
    )
    assert metrics["mutual_information/held_out_mixed"] < metrics["mutual_information/ceiling_mixed"] < math.log(3)


@pytest.mark.parametrize("task", [MutualInformation, Noise])
def test_fewer_pairs_than_a_batch_are_refused(model, task):
    with pytest.raises(DataError, match=r"`num_pairs=6`: `held_out` has 5 pairs, fewer than one batch"):
        task(pairs(5), None, num_pairs=6, batch_size=8).run(model, CPU)


def test_an_image_without_a_caption_is_named(model):
    dataset = pairs(6)
    dataset.items[4] = dataset.items[4]._replace(captions=())
    with pytest.raises(DataError, match=r"Sample 'k4' of `held_out` has no caption"):
        MutualInformation(dataset, None, num_pairs=3, batch_size=8).run(model, CPU)


def is_wrong(number):
    return number % 3 == 0


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ({"wrong": is_wrong}, {"field": "wrong"}),
        ({"about": lambda n: {"kind": "absent" if is_wrong(n) else "none"}}, {"field": "about.kind"}),
        ({"score": lambda n: 0.2 if is_wrong(n) else 0.3}, {"field": "score", "min_score": 0.3}),
    ],
    ids=["boolean", "word", "score"],
)
def test_noise_compares_similarities_and_losses_of_both_kinds(model, field, options):
    dataset = pairs(17, **field)
    metrics, chance, *_ = Noise(None, dataset, num_pairs=5, batch_size=5, **options).run(model, CPU)
    images, texts, _ = features(model, dataset)
    similarity, wrong = (images * texts).sum(1), np.array([is_wrong(n) for n in range(17)])
    in_order = [(bad < good) + (bad == good) / 2 for bad in similarity[wrong] for good in similarity[~wrong]]
    assert metrics["noise/train/roc_auc"] == pytest.approx(np.mean(in_order))
    ranked = wrong[np.argsort(similarity)]
    precision = ranked.cumsum() / np.arange(1, 18)
    assert metrics["noise/train/average_precision"] == pytest.approx(precision[ranked].mean())
    assert chance["noise/train/average_precision"] == pytest.approx(6 / 17)

    losses = {True: [], False: []}
    for batch in batches(dataset, 5):
        images, texts, scale = features(model, batch)
        logits = scale * images @ texts.T
        for item, loss in zip(batch, -(log_softmax(logits, 0).diagonal() + log_softmax(logits, 1).diagonal()) / 2, strict=True):
            losses[is_wrong(int(item.key[1:]))].append(loss)
    assert metrics["noise/train/loss_misaligned"] == pytest.approx(np.mean(losses[True]), abs=1e-5)
    assert metrics["noise/train/loss_aligned"] == pytest.approx(np.mean(losses[False]), abs=1e-5)
    assert metrics["noise/train/loss_gap"] == pytest.approx(np.mean(losses[True]) - np.mean(losses[False]), abs=1e-5)


@pytest.mark.parametrize(
    ("field", "options", "says"),
    [
        ({}, {}, r"`field=misalignment\.kind`: sample 'k\d' of `held_out` has no such field"),
        ({"x": lambda n: [n]}, {"field": "x"}, r"has \[\d\] in its JSON"),
        ({"x": lambda n: 0.5}, {"field": "x"}, r"has the score 0\.5; say with `min_score`"),
        ({"x": lambda n: False}, {"field": "x"}, r"all 6 pairs of `held_out` in whole batches .* are aligned"),
        ({"x": lambda n: "swapped"}, {"field": "x"}, r"all 6 pairs of `held_out` in whole batches .* are misaligned"),
    ],
    ids=["absent", "list", "score without a limit", "all aligned", "all misaligned"],
)
def test_a_set_that_does_not_say_which_pairs_are_misaligned_is_refused(model, field, options, says):
    with pytest.raises(DataError, match=says):
        Noise(pairs(6, **field), None, num_pairs=3, batch_size=8, **options).run(model, CPU)


def test_misaligned_pairs_that_no_whole_batch_has_leave_their_loss_without_a_value(model):
    left_out = int(permutation(7, "pairs")[-1])
    with pytest.raises(DataError, match=r"all 6 pairs of `held_out` in whole batches .`num_pairs=3`. are aligned"):
        Noise(pairs(7, wrong=lambda n: n == left_out), None, field="wrong", num_pairs=3, batch_size=8).run(model, CPU)
