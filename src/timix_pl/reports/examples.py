"""Examples that evaluations left: queries and what they found, confusions, questions with answers, captions."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timix_pl.reports.figures import words
from timix_pl.reports.pictures import Picture, thumbnail

MAX_SHOWN = 24
MAX_CLASSES = 60
"""A larger confusion matrix could not be read; the most frequent confusions still can."""
NUMBERS_UP_TO = 12
"""Classes whose matrix has room for numbers."""
MAX_CONFUSIONS = 12


@dataclass(frozen=True)
class Found:
    """An image or a caption, and whether it is a right answer; ``score`` where one is shown."""

    picture: Picture | None
    text: str
    right: bool
    score: str = ""


@dataclass(frozen=True)
class Query:
    """A caption with the images that it found, or an image with captions; ``answer``: a right one, where none of them is."""

    query: Found
    rank: int
    found: list[Found]
    answer: Found | None


@dataclass(frozen=True)
class Cell:
    """Of the images of one class, the share that was given another or the same; ``percent`` is empty where it is 0."""

    share: float
    percent: str
    title: str


@dataclass(frozen=True)
class Confusion:
    """Rows are true classes, columns given ones; ``cells`` is empty where these are too many; ``frequent``: the largest errors."""

    classes: list[str]
    cells: list[list[Cell]]
    frequent: list[tuple[str, str, str]]
    numbers: bool


@dataclass(frozen=True)
class Answered:
    """A question about an image: the answer given, the right ones, and the choices if there were any."""

    picture: Picture
    question: str
    answer: str
    right_answers: list[str]
    right: bool
    choices: list[Found]


@dataclass(frozen=True)
class Captioned:
    """An image's caption beside what people wrote."""

    picture: Picture
    caption: str
    references: list[str]
    score: str


Shown = Query | Confusion | Answered | Captioned


@dataclass(frozen=True)
class Examples:
    """Those of one evaluation, all of one kind: ``queries``, ``confusion``, ``answers`` or ``captions``."""

    title: str
    source: str
    kind: str
    entries: list[Any]


def read_examples(folder: Path, source: str, notes: list[str]) -> dict[str, tuple[str, Examples]]:
    """Of each evaluation the file's text and what it shows; a file or an entry that cannot be shown is noted.

    Args:
        folder: holds ``NAME.json`` files and the pictures that they name.
        source: which evaluation left them, in words.
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
            title = words(path.stem)
            read[path.stem] = text, Examples(title[:1].upper() + title[1:], source, kind, [entry for of, entry in shown if of == kind])
    return read


def _found(folder: Path, entry: dict[str, Any], right: bool = False) -> Found:
    score = entry.get("score")
    return Found(
        thumbnail(folder / entry["image"]) if "image" in entry else None,
        str(entry.get("caption", entry.get("text", ""))),
        bool(entry.get("right", right)),
        "" if score is None else f"{float(score):.2f}",
    )


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
    return Confusion(classes, cells if len(classes) <= MAX_CLASSES else [], frequent, len(classes) <= NUMBERS_UP_TO)


def _answered(folder: Path, entry: dict[str, Any]) -> Answered:
    right_answers = [str(answer) for answer in _first(entry, "right_answers", "answers")]
    choices = [{"text": _first(choice, "text", "choice"), "score": choice["score"]} for choice in entry.get("choices") or []]
    return Answered(
        thumbnail(folder / entry["image"]),
        str(entry["question"]),
        str(_first(entry, "answer", "chosen", "given")),
        right_answers,
        bool(entry["right"]),
        [_found(folder, choice, right=choice["text"] in right_answers) for choice in choices],
    )


def _first(entry: dict[str, Any], *keys: str) -> Any:
    """The value of the first of these keys that the entry has."""
    return entry[next((key for key in keys if key in entry), keys[0])]


def _captioned(folder: Path, entry: dict[str, Any]) -> Captioned:
    references = [str(reference) for reference in entry["references"]]
    return Captioned(
        thumbnail(folder / entry["image"]), str(entry["caption"]), references, f"{float(_first(entry, 'score', 'cider_d')):.2f}"
    )


_KINDS: dict[str, tuple[str, Callable[[Path, dict[str, Any]], Shown]]] = {
    "queries": ("found", _query),
    "confusion": ("confusion", _confusion),
    "answers": ("question", _answered),
    "captions": ("references", _captioned),
}
"""Each kind with the key that tells it."""
