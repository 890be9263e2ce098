"""Retrieval figures against full sorted lists, levels of chance against random orders and against hand counts."""

from itertools import combinations

import numpy as np
import pytest
import torch

from timix_pl.metrics.ranking import positive_ranks
from timix_pl.metrics.retrieval import retrieval_chance, retrieval_metrics

CAPTIONS_PER_IMAGE = [1, 5, 2, 2, 1, 3, 7, 1, 1, 4, 2, 1]


def figures_by_hand(scores, image_of_text):
    """The figures from sorted candidate lists; scores are all different."""
    best_place_of_own = {"image_to_text": [], "text_to_image": []}
    for image, row in enumerate(scores):
        ranking = image_of_text[np.argsort(-row)]
        best_place_of_own["image_to_text"].append(list(ranking).index(image))
    for text, column in enumerate(scores.T):
        best_place_of_own["text_to_image"].append(list(np.argsort(-column)).index(image_of_text[text]))

    figures = {}
    for direction, places in best_place_of_own.items():
        for k in (1, 5, 10):
            figures[f"{direction}/recall_at_{k}"] = np.mean([place in range(k) for place in places])
        figures[f"{direction}/median_rank"] = np.median(places) + 1
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
        positive_ranks(image_features, text_features, torch.arange(12), labels),
        positive_ranks(text_features, image_features, labels, torch.arange(12)),
    )
    assert figures == pytest.approx(figures_by_hand(images @ texts.T, image_of_text))


def test_chance_is_what_random_scores_give():
    draw = np.random.default_rng(0)
    image_of_text = np.repeat(np.arange(12), CAPTIONS_PER_IMAGE)
    trials = [figures_by_hand(draw.random((12, 30)), image_of_text) for _ in range(4000)]
    chance = retrieval_chance(CAPTIONS_PER_IMAGE)
    for name, value in chance.items():
        if "median" not in name:
            assert value == pytest.approx(np.mean([trial[name] for trial in trials]), abs=0.01), name


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


def test_chance_is_quick_for_half_a_million_captions():
    assert retrieval_chance([5] * 100_000)["text_to_image/median_rank"] == 50_000.5
