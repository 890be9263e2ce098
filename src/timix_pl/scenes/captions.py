"""Write phrases and captions about a scene."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from timix_pl.core.sample import Region

Box = tuple[float, float, float, float]
T = TypeVar("T")

OPENINGS = ("", "", "a photo of ", "a picture of ", "a scene with ", "there is ", "we see ")
ADJECTIVE_PROBABILITY = 0.7
RELATION_PROBABILITY = 0.6


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def write_phrase(rng: np.random.Generator, *, colour: str, shape: str, size: str, texture: str) -> str:
    """Colour and shape always, size and texture often: "a small red ring", "a dotted white star"."""
    adjectives = [word for word in (size, texture) if rng.random() < ADJECTIVE_PROBABILITY]
    return " ".join(["a", *adjectives, colour, shape])


def write_caption(rng: np.random.Generator, regions: Sequence[Region], absent: Sequence[str] = ()) -> str:
    """A sentence that names every region once and, without saying where, every phrase in ``absent``.

    Pairs of regions may be joined by a relation that is true of their boxes.
    """
    clauses = [*_clauses(rng, regions), *absent]
    clauses = [clauses[i] for i in rng.permutation(len(clauses))]
    *others, last = clauses
    if not others:
        return choose(rng, OPENINGS) + last
    # The comma keeps "a, and b left of c" from saying that both lie there; two bare phrases need none.
    separator = " and " if len(regions) + len(absent) == 2 else ", and "
    return choose(rng, OPENINGS) + ", ".join(others) + separator + last


def _clauses(rng: np.random.Generator, regions: Sequence[Region]) -> list[str]:
    queue = [regions[i] for i in rng.permutation(len(regions))]
    clauses = []
    while queue:
        first = queue.pop()
        if queue and rng.random() < RELATION_PROBABILITY:
            second = queue.pop()
            relation = choose(rng, _true_relations(first.bbox_xyxy_norm, second.bbox_xyxy_norm))
            clauses.append(f"{first.phrase} {relation} {second.phrase}")
        else:
            clauses.append(first.phrase)
    return clauses


def _true_relations(a: Box, b: Box) -> list[str]:
    """The relations that hold between all of box a and all of box b; y grows downwards. Boxes that do not overlap have at least one."""
    holds = {
        "left of": a[2] <= b[0],
        "right of": a[0] >= b[2],
        "above": a[3] <= b[1],
        "below": a[1] >= b[3],
    }
    return [relation for relation, true in holds.items() if true]
