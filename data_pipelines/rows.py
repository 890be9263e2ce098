"""What travels between the stages: one row per image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from timix_pl.core.sample import Region


class Problem(NamedTuple):
    """Why something is left out: a reason that can be counted, and what exactly."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Row:
    """An image, what is said about it, and what is wrong with it.

    Attributes:
        key: its name in the shards; unique in a collection.
        image: a file, or encoded bytes once it is loaded; None where there is none.
        image_ext: jpg, png or webp once it is loaded.
        regions: as published until ``stages.clean`` has seen them: boxes may leave the image.
        extra: further fields of the sample's JSON.
        group: rows of one group (the same photo) go to the same part of a train/val split; the key where empty.
        left_out: parts of the row that are dropped, such as one empty caption of five.
        problem: why the whole row is dropped; later stages pass such a row on.
    """

    key: str
    image: Path | bytes | None = None
    image_ext: str = ""
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    left_out: tuple[Problem, ...] = ()
    problem: Problem | None = None

    def failed(self, reason: str, detail: str = "") -> Self:
        """This row with a problem."""
        return replace(self, problem=Problem(reason, detail))
