"""The side of the window: its range, its distribution, and that it is one draw per step."""

from collections import Counter
from fractions import Fraction
from math import floor

import pytest
import torch

from timix_pl.mixing.windows import draw_side, side_range, window_sums


@pytest.mark.parametrize(
    ("grid", "min_side", "max_side", "expected"),
    [
        ((14, 14), 0.35, 0.75, (4, 10)),
        ((7, 7), 0.35, 0.75, (2, 5)),
        ((4, 9), 0.35, 0.75, (1, 3)),
        ((9, 4), 0.35, 0.75, (1, 3)),
        ((2, 2), 0.35, 0.75, (1, 1)),
        ((8, 8), 0.01, 0.99, (1, 7)),
        ((6, 6), 0.5, 0.5, (3, 3)),
    ],
)
def test_range_of_sides(grid, min_side, max_side, expected):
    assert side_range(grid, min_side, max_side) == expected


def test_range_of_sides_is_exact_for_all_usual_grids():
    for shorter in range(2, 33):
        for low, high in ((20, 60), (30, 70), (35, 75), (40, 80)):
            exact = [max(floor(Fraction(share, 100) * shorter), 1) for share in (low, high)]
            assert side_range((shorter, shorter + 3), low / 100, high / 100) == (exact[0], exact[1])


def test_sides_are_uniform_over_the_whole_range():
    sides = Counter(draw_side((14, 14), 0.35, 0.75, seed=5, step=step) for step in range(7000))
    assert sorted(sides) == list(range(4, 11))
    assert all(abs(count - 1000) < 150 for count in sides.values())  # 5 standard deviations


def test_the_side_depends_on_seed_and_step():
    def draws(seed):
        return [draw_side((14, 14), 0.35, 0.75, seed=seed, step=step) for step in range(40)]

    assert draws(0) == draws(0) and draws(0) != draws(1)


def test_window_sums_equal_loops():
    scores = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = window_sums(scores, 3)
    assert sums.shape == (2, 3, 5)
    for y in range(3):
        for x in range(5):
            torch.testing.assert_close(sums[:, y, x], scores[:, y : y + 3, x : x + 3].sum((1, 2)))
