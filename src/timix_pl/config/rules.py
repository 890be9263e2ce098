"""Rules for the value of a single option. Rules between options are in ``validate.py``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Rule(Protocol):
    """Says whether a value is allowed. ``str(rule)`` follows "must be" in a message."""

    def __contains__(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``; ``above`` excludes ``low``, ``below`` excludes ``high``."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return enough and (value < self.high if self.below else value <= self.high) and math.isfinite(value)

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        if self.above or self.below:
            return f"{low} and {'less than' if self.below else 'at most'} {self.high:g}"
        return f"from {self.low:g} to {self.high:g}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)


@dataclass(frozen=True)
class LowHigh:
    """Two numbers above 0 and at most ``highest``, the smaller one first."""

    highest: float = math.inf

    def __contains__(self, value: Sequence[float]) -> bool:
        return len(value) == 2 and 0 < value[0] <= value[1] <= self.highest

    def __str__(self) -> str:
        return "[smallest,largest], above 0" + (f" and at most {self.highest:g}" if self.highest < math.inf else "")


class ColorJitter:
    """Strengths of brightness, contrast, saturation and hue; the hue is a share of the colour circle, at most 0.5."""

    def __contains__(self, value: Sequence[float]) -> bool:
        return len(value) == 4 and all(0 <= strength < math.inf for strength in value) and value[3] <= 0.5

    def __str__(self) -> str:
        return "[brightness,contrast,saturation,hue], at least 0, and the hue at most 0.5; e.g. [0.32,0.32,0.32,0.08]"


class TwoSteps:
    """The first and the last step of a range, counted from 1."""

    def __contains__(self, value: Sequence[int]) -> bool:
        return len(value) == 2 and 1 <= value[0] <= value[1]

    def __str__(self) -> str:
        return "[first,last], two steps counted from 1, e.g. profile=[10,12]"


@dataclass(frozen=True)
class Shards:
    """Locations of samples. ``labelled``: a folder with one sub-folder per class is allowed too."""

    labelled: bool = False

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) or (isinstance(value, list) and bool(value) and all(map(self._is_source, value)))

    @staticmethod
    def _is_source(item: Any) -> bool:
        if not isinstance(item, dict):
            return isinstance(item, str)
        weight = item.get("weight", 1.0)
        is_weight = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf
        return set(item) <= {"path", "weight"} and isinstance(item.get("path"), str) and is_weight

    def __str__(self) -> str:
        return "a folder, a pattern, or a list of them, whose items may be {path: FOLDER, weight: NUMBER} with a weight above 0"


@dataclass(frozen=True)
class FileOr:
    """A .json or .txt file, or one of ``names``."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.names or value.endswith((".json", ".txt"))

    def __str__(self) -> str:
        return f"a .json or .txt file, or {' or '.join(self.names)}"


@dataclass(frozen=True)
class Template:
    """A text with one placeholder, ``{}``."""

    def __contains__(self, value: str) -> bool:
        return value.count("{}") == 1

    def __str__(self) -> str:
        return "a text that contains {} once, where the phrase goes, as in 'a photo of a {}'"
