import math

import pytest

from timix_pl.core.metric import Unit
from timix_pl.reports.chart import AREA, line_chart


def _points(path):
    return [tuple(map(float, pair.split(","))) for pair in path.split()]


def test_a_line_goes_through_its_values_to_scale():
    chart = line_chart("t", {"a": [(0, 0.0), (50, 4.0), (100, 8.0)]}, last_step=100)
    assert [tick.text for tick in chart.y_ticks] == ["0", "2", "4", "6", "8"]
    assert _points(chart.lines[0].path) == [(AREA.left, AREA.bottom), ((AREA.left + AREA.right) / 2, 98), (AREA.right, AREA.top)]
    assert chart.lines[0].last == "8"


@pytest.mark.parametrize(
    "values", [[0.0], [3.0, 3.0], [-2.0, -1.0], [1e-9, 3e-9], [5e6, 9e6], [0.1 + 0.2, 0.3], [2.71, 2.72]], ids=lambda values: str(values)
)
def test_every_point_lies_between_the_outer_ticks_of_the_axis(values):
    chart = line_chart("t", {"a": list(enumerate(values))}, last_step=len(values))
    lowest, highest = chart.y_ticks[0].at, chart.y_ticks[-1].at
    assert all(highest - 0.1 <= y <= lowest + 0.1 for _, y in _points(chart.lines[0].path))
    assert 2 <= len({tick.text for tick in chart.y_ticks}) <= 7


def test_chance_is_drawn_to_the_same_scale_and_kept_in_view():
    chart = line_chart("t", {"a": [(0, 0.5), (10, 1.0)], "b": [(0, 0.6)]}, last_step=10, chance={"a": 0.25}, unit=Unit.share)
    assert chart.lines[0].chance_y == pytest.approx(AREA.bottom - 0.25 * (AREA.bottom - AREA.top))
    assert chart.lines[1].chance_y is None
    assert chart.lines[0].last == "100%"


def test_a_long_curve_is_averaged_and_its_extremes_stay_visible_as_a_band():
    values = [math.sin(step) for step in range(10_000)]
    values[5_003] = 40.0
    line = line_chart("t", {"a": list(enumerate(values))}, last_step=10_000).lines[0]
    assert len(_points(line.path)) == 200
    assert min(y for _, y in _points(line.band)) == pytest.approx(AREA.top, abs=0.1)
    assert min(y for _, y in _points(line.path)) > AREA.top + 50
