"""Retrieval figures against full sorted lists, levels of chance against random orders and against hand counts."""

from itertools import combinations

import numpy as np
import pytest
import torch

from timix_pl.metrics.ranking import rank_positives
from timix_pl.metrics.retrieval import MAP_AT, retrieval_chance, retrieval_metrics

CAPTIONS_PER_IMAGE = [1, 5, 2, 2, 1, 3, 7, 1, 1, 4, 2, 1]


def figures_by_hand(scores, image_of_text):
    """The figures from sorted candidate lists; scores are all different."""
    is_own = {"image_to_text": [], "text_to_image": []}
    for image, row in enumerate(scores):
        is_own["image_to_text"].append(image_of_text[np.argsort(-row)] == image)
    for text, column in enumerate(scores.T):
        is_own["text_to_image"].append(np.argsort(-column) == image_of_text[text])

    figures = {}
    for direction, found in is_own.items():
        places = [own.argmax() for own in found]
        for k in (1, 5, 10):
            figures[f"{direction}/recall_at_{k}"] = np.mean([place in range(k) for place in places])
        figures[f"{direction}/median_rank"] = np.median(places) + 1
        figures[f"{direction}/mean_rank"] = np.mean(places) + 1
        precisions = [(own.cumsum() / np.arange(1, len(own) + 1) * own)[:10].sum() / min(own.sum(), 10) for own in found]
        figures[f"{direction}/map_at_10"] = np.mean(precisions)
    figures["mean_recall"] = np.mean([value for name, value in figures.items() if "recall" in name])
    return figures


@pytest.mark.parametrize("seed", range(3))
def test_equals_sorted_lists_with_several_captions_per_image(seed):
    draw = np.random.default_rng(seed)
    image_of_text = draw.permutation(np.repeat(np.arange(12), CAPTIONS_PER_IMAGE))
    images, texts = draw.normal(size=(12, 6)), draw.normal(size=(30, 6))
    texts += images[image_of_text]

    image_features, text_features, labels = torch.tensor(images), torch.tensor(texts), torch.tensor(image_of_text)
    figures = retrieval_metrics(
        rank_positives(image_features, text_features, torch.arange(12), labels, MAP_AT),
        rank_positives(text_features, image_features, labels, torch.arange(12), MAP_AT),
    )
    assert figures == pytest.approx(figures_by_hand(images @ texts.T, image_of_text))


def test_chance_is_what_random_scores_give():
    draw = np.random.default_rng(0)
    image_of_text = np.repeat(np.arange(12), CAPTIONS_PER_IMAGE)
    trials = [figures_by_hand(draw.random((12, 30)), image_of_text) for _ in range(4000)]
    chance = retrieval_chance(CAPTIONS_PER_IMAGE)
    for name, value in chance.items():
        if "median" not in name:
            assert value == pytest.approx(np.mean([trial[name] for trial in trials]), rel=0.01, abs=0.01), name


def test_recall_chance_counts_every_set_of_first_places():
    chance = retrieval_chance([1, 3, 2])
    first_five = list(combinations(range(6), 5))
    for_images = [np.mean([any(place < own for place in places) for places in first_five]) for own in (1, 3, 2)]
    assert chance["image_to_text/recall_at_1"] == pytest.approx((1 + 3 + 2) / 6 / 3)
    assert chance["image_to_text/recall_at_5"] == pytest.approx(np.mean(for_images))
    assert chance["image_to_text/recall_at_10"] == 1
    assert chance["text_to_image/recall_at_1"] == pytest.approx(1 / 3)
    assert chance["text_to_image/recall_at_5"] == 1


def test_median_rank_chance_with_one_caption_each_is_the_middle():
    for num_images in (1, 2, 9, 1000):
        chance = retrieval_chance([1] * num_images)
        assert chance["image_to_text/median_rank"] == chance["text_to_image/median_rank"] == (num_images + 1) / 2


def test_median_rank_chance_with_several_captions_is_that_of_random_orders():
    draw = np.random.default_rng(0)
    ranks = [min(draw.permutation(40)[:5]) + 1 for _ in range(20000)]
    assert retrieval_chance([5] * 8)["image_to_text/median_rank"] == np.median(ranks)
    assert retrieval_chance([5] * 8)["text_to_image/median_rank"] == 4.5


def test_map_chance_counts_every_order():
    of_two = np.mean([(1 / a + 2 / b) / 2 for a, b in combinations(range(1, 6), 2)])
    of_three = np.mean([(1 / a + 2 / b + 3 / c) / 3 for a, b, c in combinations(range(1, 6), 3)])
    chance = retrieval_chance([2, 3])
    assert chance["image_to_text/map_at_10"] == pytest.approx((of_two + of_three) / 2)
    assert chance["text_to_image/map_at_10"] == pytest.approx((1 + 1 / 2) / 2)
    assert chance["image_to_text/mean_rank"] == pytest.approx((6 / 3 + 6 / 4) / 2)
    assert retrieval_chance([1])["image_to_text/map_at_10"] == 1


def test_chance_is_quick_for_half_a_million_captions():
    assert retrieval_chance([5] * 100_000)["text_to_image/median_rank"] == 50_000.5
