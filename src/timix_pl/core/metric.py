"""The description of a metric: unit, direction, label, and level of chance."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Unit(StrEnum):
    """The unit of a metric."""

    share = "share"
    """A share between 0 and 1; shown in percent."""
    score = "score"
    """A captioning score; shown times 100, as in papers."""
    rank = "rank"
    """A rank, from 1."""
    nats = "nats"
    """A logarithm; ratios of two such numbers have no meaning."""
    number = "number"
    """Any other number."""


@dataclass(frozen=True)
class Metric:
    """The description of a metric, declared where the metric is computed.

    Attributes:
        unit: the unit of the number.
        higher_is_better: None: neither direction is better.
        label: name for readers, e.g. ``image to text, recall at 1``; empty: the metric's name.
        chance: what the level of chance means, in a few words, e.g. ``guessing a class``.
        unit_word: a word after the number, e.g. ``dB``.
        group: heading in reports, e.g. ``zero-shot``; evaluators set it to their ``title``.
    Raises:
        ValueError: unknown unit.
    """

    unit: Unit = Unit.number
    higher_is_better: bool | None = None
    label: str = ""
    chance: str = ""
    unit_word: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", Unit(self.unit))  # files store the unit as a string


def describe(declared: Mapping[str, Metric], name: str) -> Metric | None:
    """Look up the description of a metric.

    Args:
        declared: descriptions by name. ``*`` in a name matches any text, which replaces ``{}`` in the label.
    Returns:
        The description; None if no name matches.

    >>> describe({"accuracy/*": Metric(Unit.share, True, "accuracy, {}")}, "accuracy/what_color").label
    'accuracy, what color'
    """
    if name in declared:
        return declared[name]
    for pattern, metric in declared.items():
        if "*" in pattern and (found := re.fullmatch(re.escape(pattern).replace(r"\*", "(.+)"), name)):
            return replace(metric, label=metric.label.replace("{}", found[1].replace("_", " ")))
    return None


def descriptions_in(content: Mapping[str, Any], known: Callable[[str], Metric | None]) -> dict[str, Metric]:
    """The descriptions of the metrics in the content of an ``evaluation.json``.

    Args:
        known: gives the description of a metric by name, or None. It is used for metrics that the file does not describe, because earlier
            versions wrote no descriptions.
    Returns:
        Descriptions by name; metrics without one are left out.
    """
    written = content.get("descriptions", {})
    found = {name: _read(written[name]) if name in written else known(name) for name in content.get("metrics", {})}
    return {name: metric for name, metric in found.items() if metric is not None}


def _read(entry: Any) -> Metric | None:
    try:
        return Metric(**entry)
    except (TypeError, ValueError):  # written by a later version
        return None
