"""The rows that stages exchange, one per image."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from timix_pl.core.sample import Region


class Problem(NamedTuple):
    """Why something is left out: a reason, by which problems are counted, and the details."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Row:
    """An image with its captions and regions, and its problems.

    Attributes:
        key: its name in the shards; unique in a collection.
        image: a file, or the encoded bytes after loading; None if there is none.
        image_ext: jpg, png or webp, after loading.
        regions: before ``stages.clean`` as published, so boxes may extend beyond the image.
        extra: further fields of the sample's JSON.
        group: rows of one group (the same photo) go to the same part of a train/val split; empty: the key.
        left_out: problems of dropped parts of the row, such as one empty caption of five.
        problem: why the whole row is dropped; later stages do not change such a row.
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
