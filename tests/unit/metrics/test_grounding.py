"""Grounding figures against plain loops over patches."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss

from timix_pl.metrics.grounding import (
    average_precision,
    calibration_error,
    grounding_chance,
    grounding_metrics,
    localisation_hits,
    peak_regions,
    pointing_hits,
)

GRID = (4, 6)


def random_case(seed, num=60):
    """Phrases with one box or more; heat maps drawn to them somewhat, so that some hit and some miss; coarse, so that patches tie."""
    draw = np.random.default_rng(seed)
    phrase_of_box = draw.permutation(np.concatenate([np.arange(num), draw.integers(0, num, num // 2)]))
    boxes = np.sort(draw.random((len(phrase_of_box), 2, 2)), axis=1).reshape(-1, 4)
    x, y = (np.arange(6) + 0.5) / 6, (np.arange(4)[:, None] + 0.5) / 4
    inside = np.stack([(x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1) for x0, y0, x1, y1 in boxes])
    labels = np.stack([inside[phrase_of_box == phrase].any(axis=0) for phrase in range(num)])
    logits = draw.normal(size=(num, *GRID)) + 3 * labels - 1.5
    return logits.round(1), boxes, phrase_of_box, labels.reshape(num, 24).astype(float)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def peak_region_by_flooding(heat_map):
    rows, columns = heat_map.shape
    peak = np.unravel_index(heat_map.argmax(), heat_map.shape)
    region, waiting = set(), [peak]
    while waiting:
        row, column = waiting.pop()
        if (row, column) in region or not (0 <= row < rows and 0 <= column < columns) or heat_map[row, column] < heat_map[peak] / 2:
            continue
        region.add((row, column))
        waiting += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return region


def is_localised(heat_map, boxes):
    rows, columns = zip(*peak_region_by_flooding(heat_map), strict=True)
    found = (min(columns) / GRID[1], min(rows) / GRID[0], (max(columns) + 1) / GRID[1], (max(rows) + 1) / GRID[0])
    return any(iou(found, box) >= 0.5 for box in boxes)


def is_inside(point, boxes):
    return any(x0 <= point[0] <= x1 and y0 <= point[1] <= y1 for x0, y0, x1, y1 in boxes)


def is_pointed_at(heat_map, boxes):
    best = np.argwhere(heat_map == heat_map.max())
    return all(is_inside(((column + 0.5) / GRID[1], (row + 0.5) / GRID[0]), boxes) for row, column in best)


def average_precision_by_hand(scores, positive):
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall, precision = (taken & positive).sum() / positive.sum(), (taken & positive).sum() / taken.sum()
        area += (recall - recall_before) * precision
        recall_before = recall
    return area


def calibration_error_by_hand(probabilities, positive, num_bins=15):
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [i for i, p in enumerate(probabilities) if low < p <= high or (number == 0 and p == 0)]
        if inside:
            total += len(inside) * abs(np.mean([positive[i] for i in inside]) - np.mean([probabilities[i] for i in inside]))
    return total / len(probabilities)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_loops_over_patches(seed):
    logits, boxes, phrase_of_box, labels = random_case(seed)
    boxes_of_phrase = [boxes[phrase_of_box == phrase] for phrase in range(len(logits))]
    probabilities = 1 / (1 + np.exp(-logits))
    predicted, positive = probabilities >= 0.5, labels.reshape(logits.shape) == 1
    expected = {
        "pointing": np.mean([is_pointed_at(m, b) for m, b in zip(logits, boxes_of_phrase, strict=True)]),
        "localisation": np.mean([is_localised(m, b) for m, b in zip(probabilities, boxes_of_phrase, strict=True)]),
        "patch_precision": (predicted & positive).sum() / predicted.sum(),
        "patch_recall": (predicted & positive).sum() / positive.sum(),
        "patch_ap": average_precision_by_hand(logits.ravel(), positive.ravel()),
        "pointing_centre": np.mean([is_inside((0.5, 0.5), own) for own in boxes_of_phrase]),
        "patch_calibration_error": calibration_error_by_hand(probabilities.ravel(), positive.ravel()),
        "patch_brier_score": brier_score_loss(positive.ravel(), probabilities.ravel()),
    }
    assert 0 < expected["pointing"] < 1 and 0 < expected["localisation"] < 1
    assert grounding_metrics(*map(torch.tensor, (logits, boxes, phrase_of_box, labels))) == pytest.approx(expected)


def test_chance_equals_blind_answers():
    logits, boxes, phrase_of_box, labels = random_case(seed=0)
    boxes_of_phrase = [boxes[phrase_of_box == phrase] for phrase in range(len(logits))]
    centres = [((column + 0.5) / 6, (row + 0.5) / 4) for row in range(4) for column in range(6)]
    guesses = [(x0 / 6, y0 / 4, x1 / 6, y1 / 4) for x0 in range(6) for x1 in range(x0 + 1, 7) for y0 in range(4) for y1 in range(y0 + 1, 5)]
    expected = {
        "pointing": np.mean([is_inside(centre, own) for own in boxes_of_phrase for centre in centres]),
        "localisation": max(np.mean([any(iou(guess, box) >= 0.5 for box in own) for own in boxes_of_phrase]) for guess in guesses),
        "patch_precision": labels.mean(),
        "patch_recall": (logits >= 0).mean(),
        "patch_ap": labels.mean(),
        "patch_brier_score": brier_score_loss(labels.ravel(), np.full(labels.size, labels.mean())),
    }
    expected["pointing_centre"] = expected["pointing"]
    assert grounding_chance(*map(torch.tensor, (logits, boxes, phrase_of_box, labels))) == pytest.approx(expected)


def test_shuffled_heat_maps_score_at_chance():
    draw = np.random.default_rng(0)
    logits, *truth = random_case(seed=0, num=3000)
    case = [torch.tensor(draw.normal(size=logits.shape)), *map(torch.tensor, truth)]
    metrics, chance = grounding_metrics(*case), grounding_chance(*case)
    for name in ("pointing", "patch_precision", "patch_recall", "patch_ap"):
        assert metrics[name] == pytest.approx(chance[name], abs=0.03), name


def test_peak_region_follows_a_winding_path_and_no_diagonals():
    heat_map = torch.tensor(
        [
            [0.9, 0.1, 0.8, 0.8, 0.8, 0.1],
            [0.8, 0.1, 0.8, 0.1, 0.8, 0.1],
            [0.8, 0.1, 0.8, 0.1, 0.8, 0.1],
            [0.8, 0.8, 0.8, 0.1, 0.1, 0.8],
        ]
    )
    expected = heat_map > 0.5
    expected[3, 5] = False  # touches the path at a corner alone
    assert torch.equal(peak_regions(heat_map[None])[0], expected)


def test_broken_heat_maps_hit_nothing():
    for box in ([0.0, 0.0, 0.6, 0.6], [0.0, 0.0, 1 / 6, 1 / 4]):
        for heat_map in (torch.full((1, *GRID), torch.nan), torch.zeros(1, *GRID)):
            assert not pointing_hits(heat_map, torch.tensor([box]), torch.tensor([0])).any()
            assert not localisation_hits(heat_map, torch.tensor([box]), torch.tensor([0])).any()


@pytest.mark.parametrize("level", [30.0, -300.0])
def test_the_best_of_very_sure_patches_is_found(level):
    logits = torch.full((1, *GRID), level - 40)
    logits[0, 0, 0], logits[0, 3, 5] = level, level + 1
    box = torch.tensor([[5 / 6, 3 / 4, 1.0, 1.0]])
    assert grounding_metrics(logits, box, torch.tensor([0]), torch.zeros(1, 24))["localisation"] == 1


def test_nothing_predicted_and_nothing_positive_are_zero_not_nan():
    boxes = torch.tensor([[0.0, 0.0, 0.1, 0.1]])
    metrics = grounding_metrics(torch.full((1, *GRID), -1.0), boxes, torch.tensor([0]), torch.zeros(1, 24))
    assert metrics["patch_precision"] == metrics["patch_recall"] == metrics["patch_ap"] == 0


def test_average_precision_of_a_constant_is_the_share_of_positives():
    assert average_precision(torch.zeros(8), torch.arange(8) < 3) == pytest.approx(3 / 8)


def test_average_precision_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    scores, positive = draw.normal(size=500).round(1), draw.random(500) < 0.3
    assert average_precision(torch.tensor(scores), torch.tensor(positive)) == pytest.approx(average_precision_score(positive, scores))


def test_patches_without_a_score_count_against_the_model():
    nan, positive = torch.nan, torch.tensor([True, True, False, False])
    assert average_precision(torch.tensor([nan, 2.0, nan, 1.0]), positive) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_calibration_error_equals_a_loop_over_bins():
    draw = np.random.default_rng(0)
    probabilities = np.concatenate([draw.random(400), [0, 1, 1 / 15, 1 / 3, 2 / 3]])
    positive = draw.random(405) < probabilities + 0.3 * (-1) ** np.floor(probabilities * 15)  # bins err up and down by turns
    ours = calibration_error(torch.tensor(probabilities), torch.tensor(positive))
    assert ours == pytest.approx(calibration_error_by_hand(probabilities, positive)) and ours > 0.05


def test_the_base_rate_is_calibrated_and_its_brier_score_is_chance():
    positive = torch.arange(8) < 2
    assert calibration_error(torch.full((8,), 0.25), positive) == 0
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    case = torch.full((1, 2, 4), 0.25).logit(), box, torch.tensor([0]), positive[None].double()
    assert grounding_metrics(*case)["patch_brier_score"] == pytest.approx(grounding_chance(*case)["patch_brier_score"])


def test_the_centre_point_hits_what_covers_the_middle():
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.4, 0.9], [0.6, 0.6, 1.0, 1.0]])
    case = torch.zeros(3, *GRID), boxes, torch.tensor([0, 1, 2, 2]), torch.zeros(3, 24)
    assert grounding_metrics(*case)["pointing_centre"] == pytest.approx(2 / 3)
