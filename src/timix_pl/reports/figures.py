"""A metric as text: its label, its value, and its level of chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from timix_pl.core.metric import Metric, Unit


@dataclass(frozen=True)
class Figure:
    """One metric and, if known, its level of chance.

    ``name`` is the metric's stable name, e.g. ``retrieval/image_to_text/recall_at_1``.
    """

    name: str
    metric: Metric
    value: float
    chance: float | None = None

    @property
    def group(self) -> str:
        return heading(self.evaluation)

    @property
    def evaluation(self) -> str:
        """The evaluation's title, for use inside a sentence."""
        return self.metric.group or words(self.name.split("/")[0])

    @property
    def label(self) -> str:
        return label(self.name, self.metric)

    @property
    def is_share(self) -> bool:
        return self.metric.unit is Unit.share

    @property
    def times_chance(self) -> float | None:
        """How many times better than chance the value is; None if chance is unknown or not positive, or if a ratio has no meaning."""
        if self.metric.unit is Unit.nats or self.metric.higher_is_better is None:
            return None
        better, worse = (self.value, self.chance) if self.metric.higher_is_better else (self.chance, self.value)
        return better / worse if better is not None and worse is not None and self.chance and better >= 0 < worse else None

    @property
    def value_text(self) -> str:
        return value_text(self.metric, self.value)

    @property
    def chance_text(self) -> str:
        return "-" if self.chance is None else number_text(self.metric, self.chance)

    @property
    def times_text(self) -> str:
        times = self.times_chance
        if times is None or not math.isfinite(times):
            return ""
        return f"{times:,.0f} ×" if times >= 10 else f"{times:.1f} ×"


def figures(metrics: Mapping[str, float], chance: Mapping[str, float], descriptions: Mapping[str, Metric]) -> list[Figure]:
    """The figures in the order of ``metrics``. Metrics without a description are plain numbers."""
    return [Figure(name, descriptions.get(name, Metric()), value, chance.get(name)) for name, value in metrics.items()]


def words(name: str) -> str:
    """A readable form of a name without a label."""
    return name.replace("_", " ")


def heading(text: str) -> str:
    """The text as a heading: capitalised, unless its first word has capitals already."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].islower() else text


def label(name: str, metric: Metric) -> str:
    """The metric's label, or else its name without the evaluation's name."""
    return metric.label or ", ".join(words(part) for part in name.split("/")[1:]) or words(name)


def value_text(metric: Metric, value: float) -> str:
    """The value of a metric as text: a share of 0.631 as '63.1%', a rank as '3.5' or '12,000', a captioning score as '63.1'."""
    word = unit_word(metric)
    return f"{number_text(metric, value)} {word}" if word and math.isfinite(value) else number_text(metric, value)


def unit_word(metric: Metric) -> str:
    """The word after the metric's number; empty if there is none."""
    return "nats" if metric.unit is Unit.nats else metric.unit_word


def number_text(metric: Metric, value: float) -> str:
    """``value_text`` without the unit's word."""
    if not math.isfinite(value):
        return "undefined"
    if metric.unit is Unit.rank:
        return _one_decimal(value)
    if metric.unit is Unit.score:
        return f"{value * 100:.1f}"
    if metric.unit is Unit.share:
        return f"{value * 100:.1f}%" if value == 0 or value >= 0.001 else f"{value * 100:.2g}%"
    if metric.unit is Unit.number and abs(value) >= 10:
        return _one_decimal(value)
    if metric.unit is Unit.number and 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.3f}"


def _one_decimal(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def count_text(count: int | Mapping[str, int]) -> str:
    """A number of samples as text: '1,234', or by set '1,500 train + 9 held-out'."""
    if isinstance(count, int):
        return f"{count:,}"
    return " + ".join(f"{of_set:,} {name.replace('_', '-')}" for name, of_set in count.items())
