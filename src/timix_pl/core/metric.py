"""What a metric is: its unit, which direction is better, its label, and what its level of chance is."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Unit(StrEnum):
    """What a metric's number is."""

    share = "share"
    """Of something, between 0 and 1; shown in percent."""
    score = "score"
    """Of captions, shown times 100, as papers do."""
    rank = "rank"
    """From 1."""
    nats = "nats"
    """Of a logarithm: the ratio of two such numbers means nothing."""
    number = "number"
    """On a scale of its own."""


@dataclass(frozen=True)
class Metric:
    """The description of a metric, declared where the metric is computed.

    Attributes:
        unit: what the number is.
        higher_is_better: None makes no claim: no value is called better than another.
        label: as people write it, e.g. ``image to text, recall at 1``; empty: the metric's name.
        chance: what its level of chance is, in a few words, e.g. ``guessing a class``.
        unit_word: follows a number, e.g. ``dB``.
        group: under which heading it stands, e.g. ``zero-shot``; evaluators fill it in, with their ``title``.
    Raises:
        ValueError: there is no such unit.
    """

    unit: Unit = Unit.number
    higher_is_better: bool | None = None
    label: str = ""
    chance: str = ""
    unit_word: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", Unit(self.unit))  # files have the word


def describe(declared: Mapping[str, Metric], name: str) -> Metric | None:
    """The description of a metric in a table of them.

    Args:
        declared: by name. A name with ``*`` describes all metrics whose names have something in its place, which takes the place of ``{}``
            in the label.
    Returns:
        None where nothing describes it.

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
        known: describes a metric by its name, or returns None. It is asked of metrics that the file does not describe: earlier versions
            wrote no descriptions.
    Returns:
        By name; without the metrics that nothing describes.
    """
    written = content.get("descriptions", {})
    found = {name: _read(written[name]) if name in written else known(name) for name in content.get("metrics", {})}
    return {name: metric for name, metric in found.items() if metric is not None}


def _read(entry: Any) -> Metric | None:
    try:
        return Metric(**entry)
    except (TypeError, ValueError):  # of a later version
        return None
