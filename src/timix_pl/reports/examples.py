"""Examples from evaluations: queries with their results, confusion matrices, questions with answers, and captions."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timix_pl.core.metric import Metric, Unit
from timix_pl.reports.figures import heading, value_text, words
from timix_pl.reports.pictures import Picture, thumbnail

MAX_SHOWN = 24
NUMBERS_UP_TO = 12
"""Largest number of classes for which the confusion matrix shows numbers."""
MAX_CONFUSIONS = 12


@dataclass(frozen=True)
class Found:
    """An image or a caption that a query found, and whether it is right."""

    picture: Picture | None
    text: str
    right: bool


@dataclass(frozen=True)
class Query:
    """A caption with the images that it found, or an image with captions. ``answer``: a right one, if none of those found is right."""

    query: Found
    rank: int
    found: list[Found]
    answer: Found | None


@dataclass(frozen=True)
class Cell:
    """The share of the images of a true class that got a predicted class; ``percent`` is empty if it is 0."""

    share: float
    percent: str
    title: str


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: rows are true classes, columns predicted ones. ``frequent``: the most frequent errors."""

    classes: list[str]
    cells: list[list[Cell]]
    frequent: list[tuple[str, str, str]]
    numbers: bool


@dataclass(frozen=True)
class Choice:
    """One of the choices, with the model's probability of it."""

    text: str
    share: str
    right: bool


@dataclass(frozen=True)
class Answered:
    """A question about an image. ``right`` is decided by its choices, or else by the open answer.

    ``choices``: the chosen one first; empty if the question has none. ``given``: the open answer with its accuracy and the human answers;
    None if there is no open answer.
    """

    picture: Picture
    question: str
    right: bool
    choices: list[Choice]
    given: str | None
    accuracy: float
    people_said: str


@dataclass(frozen=True)
class Captioned:
    """An image with its generated caption and the human captions."""

    picture: Picture
    caption: str
    references: list[str]
    cider_d: str


Shown = Query | Confusion | Answered | Captioned


@dataclass(frozen=True)
class Examples:
    """The examples of one evaluation, all of one kind: ``queries``, ``confusion``, ``answers`` or ``captions``."""

    title: str
    source: str
    kind: str
    entries: list[Any]


def read_examples(folder: Path, source: str, titles: Mapping[str, str], notes: list[str]) -> dict[str, tuple[str, Examples]]:
    """Read the examples of each evaluation: the text of the file, and its examples.

    Args:
        folder: has ``NAME.json`` files and the pictures that they name.
        source: in words, when the evaluation ran.
        titles: titles of the evaluations, by name.
        notes: receives a note for each file or entry that cannot be shown.
    """
    read = {}
    for path in sorted(folder.glob("*.json")):
        shown: list[tuple[str, Shown]] = []
        try:
            text = path.read_text(encoding="utf-8")
            entries = list(json.loads(text))
        except (OSError, ValueError, TypeError) as error:
            notes.append(f"examples/{path.name} could not be read ({error}); its examples are left out.")
            continue
        for position, entry in enumerate(entries[:MAX_SHOWN]):
            try:
                kind = next(kind for kind, (key, _) in _KINDS.items() if key in entry)
                shown.append((kind, _KINDS[kind][1](folder, entry)))
            except (OSError, LookupError, TypeError, ValueError, StopIteration) as error:
                notes.append(f"examples/{path.name}, entry {position} is left out: {type(error).__name__}: {error}.")
        if shown:
            kind = shown[0][0]
            title = heading(titles.get(path.stem, words(path.stem)))
            read[path.stem] = text, Examples(title, source, kind, [entry for of, entry in shown if of == kind])
    return read


def _found(folder: Path, entry: dict[str, Any], right: bool = False) -> Found:
    picture = thumbnail(folder / entry["image"]) if "image" in entry else None
    return Found(picture, str(entry.get("caption", "")), bool(entry.get("right", right)))


def _query(folder: Path, entry: dict[str, Any]) -> Query:
    answer = entry.get("answer")
    found = [_found(folder, one) for one in entry["found"]]
    return Query(_found(folder, entry), int(entry["rank"]), found, None if answer is None else _found(folder, answer, right=True))


def _confusion(folder: Path, entry: dict[str, Any]) -> Confusion:
    classes, counts = [str(name) for name in entry["classes"]], entry["confusion"]
    if len(counts) != len(classes) or any(len(row) != len(classes) for row in counts):
        raise ValueError(f"{len(classes)} classes, but the matrix is not {len(classes)} by {len(classes)}")
    shares = [[float(count) / (num_images or 1) for count in row] for row, num_images in zip(counts, entry["num_images"], strict=True)]
    cells = [
        [
            Cell(share, f"{share:.0%}" if share else "", f"{classes[true]}, called {classes[given]}: {share:.0%}")
            for given, share in enumerate(row)
        ]
        for true, row in enumerate(shares)
    ]
    wrong = [
        (share, classes[true], classes[given])
        for true, row in enumerate(shares)
        for given, share in enumerate(row)
        if share and given != true
    ]
    frequent = [(true, given, f"{share:.0%}") for share, true, given in sorted(wrong, key=lambda one: -one[0])[:MAX_CONFUSIONS]]
    return Confusion(classes, cells, frequent, len(classes) <= NUMBERS_UP_TO)


def _answered(folder: Path, entry: dict[str, Any]) -> Answered:
    answers, choices, given = [str(answer) for answer in entry["answers"]], entry.get("choices", []), entry.get("given")
    if given is None and not choices:
        raise ValueError("neither 'given' nor 'choices'")
    if given is not None and "accuracy" not in entry:
        raise ValueError("'accuracy' is missing, as in files of earlier versions; run timix-evaluate again")
    said = Counter(answers).most_common()
    return Answered(
        thumbnail(folder / entry["image"]),
        str(entry["question"]),
        bool(entry["right"]),
        [Choice(str(one["choice"]), f"{float(one['score']):.2f}", one["choice"] == answers[0]) for one in choices],
        None if given is None else str(given),
        0.0 if given is None else float(entry["accuracy"]),
        ", ".join(f"{answer} ({count})" if len(answers) > 1 else answer for answer, count in said),
    )


def _captioned(folder: Path, entry: dict[str, Any]) -> Captioned:
    references = [str(reference) for reference in entry["references"]]
    cider_d = value_text(Metric(Unit.score), float(entry["cider_d"]))
    return Captioned(thumbnail(folder / entry["image"]), str(entry["caption"]), references, cider_d)


_KINDS: dict[str, tuple[str, Callable[[Path, dict[str, Any]], Shown]]] = {
    "queries": ("found", _query),
    "confusion": ("confusion", _confusion),
    "answers": ("question", _answered),
    "captions": ("references", _captioned),
}
"""Each kind of examples, by the key that identifies it."""
