"""Lay out line charts. ``templates/chart.svg`` draws them, so that colours follow the page's light or dark scheme."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from timix_pl.core.metric import Unit
from timix_pl.reports.history import Points


class Area(NamedTuple):
    """The size of a chart and the area of its curves, in units of the drawing."""

    width: int = 420
    height: int = 210
    left: int = 50
    right: int = 406
    top: int = 10
    bottom: int = 186


AREA = Area()
_MAX_POINTS = 200
_DOTS_UP_TO = 30


@dataclass(frozen=True)
class Tick:
    """A tick of an axis. ``at``: its position along the axis, in units of the drawing."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: its line, the band from lowest to highest value if points were averaged, and its level of chance."""

    label: str
    last: str
    path: str
    band: str
    dots: list[tuple[float, float]]
    chance_y: float | None


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def line_chart(
    title: str,
    curves: dict[str, Points],
    *,
    last_step: float,
    note: str = "",
    chance: dict[str, float] | None = None,
    unit: Unit = Unit.number,
) -> Chart:
    """Lay out curves over steps.

    Args:
        curves: at least one, by label, each with at least one point. Curves of more than 200 points are averaged in equal pieces.
        last_step: right end of the axis, which begins at 0.
        chance: level of chance, drawn as a dotted line, by the label of its curve.
        unit: of the values; shares are shown in percent, scores times 100.
    """
    chance = chance or {}
    values = [value for points in curves.values() for _, value in points] + list(chance.values())
    y_at_ticks = _ticks(*_value_range(values))
    x_range = 0.0, last_step
    y_range = min([*y_at_ticks, *values]), max([*y_at_ticks, *values])

    def x(step: float) -> float:
        return _place(step, x_range, AREA.left, AREA.right)

    def y(value: float) -> float:
        return _place(value, y_range, AREA.bottom, AREA.top)

    lines = []
    for label, points in curves.items():
        pieces = _pieces(points)
        middles = [(x(_mean(s for s, _ in piece)), y(_mean(v for _, v in piece))) for piece in pieces]
        tops = [(at, y(max(v for _, v in piece))) for (at, _), piece in zip(middles, pieces, strict=True)]
        bottoms = [(at, y(min(v for _, v in piece))) for (at, _), piece in zip(middles, pieces, strict=True)]
        lines.append(
            Line(
                label=label,
                last=_short(points[-1][1], unit),
                path=_path(middles),
                band=_path(tops + bottoms[::-1]) if len(pieces) < len(points) else "",
                dots=middles if len(points) <= _DOTS_UP_TO else [],
                chance_y=y(chance[label]) if label in chance else None,
            )
        )
    x_ticks = [Tick(x(step), _short(step)) for step in _ticks(*x_range) if step <= last_step]
    y_ticks = [Tick(y(value), _short(value, unit)) for value in y_at_ticks]
    return Chart(title, note, lines, x_ticks, y_ticks)


def _value_range(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest value to show. Begins at 0 if all values are equal, or if that wastes less than half of the height."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * abs(high):
        return min(low, 0.0), max(high, 0.0) or 1.0
    return (0.0 if 0 < low <= high / 2 else low), high


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that cover ``low`` to ``high``."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= span / 4 * 0.999)
    return [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _pieces(points: Points) -> list[Points]:
    """The points, split into at most ``_MAX_POINTS`` pieces of equal length."""
    length = math.ceil(len(points) / _MAX_POINTS)
    return [points[start : start + length] for start in range(0, len(points), length)]


def _place(value: float, span: tuple[float, float], start: float, end: float) -> float:
    low, high = span
    return round(start + (end - start) * ((value - low) / (high - low) if high > low else 0.5), 1)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _short(value: float, unit: Unit = Unit.number) -> str:
    """A number in few characters: 12k, 0.25, 5e-4, 63%."""
    if unit in (Unit.share, Unit.score):
        return f"{value * 100:.3g}{'%' if unit is Unit.share else ''}"
    if abs(value) >= 10_000:
        return f"{value / 1e6:.3g}M" if abs(value) >= 1e6 else f"{value / 1e3:.3g}k"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return f"{value:.4g}"
