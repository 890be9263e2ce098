"""Reading annotation files, with messages that name the file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timix_pl.core.errors import DataError
from timix_pl.core.files import nearest_path


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, split only at newlines. ``splitlines`` also splits at other characters, which captions may contain.

    Raises:
        DataError: as ``read_text``.
    """
    return [line.rstrip("\r") for line in read_text(path).split("\n")]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: as ``read_text``, or it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not a JSON file ({error}).") from error


@contextmanager
def in_layout(path: Path, layout: str) -> Iterator[None]:
    """Convert errors from reading the fields of a file to a message that names the file.

    Raises:
        DataError: a field is missing or of another type.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise DataError(f"{path}: not in the layout of {layout} ({type(error).__name__}: {error}).") from error


def require_folder(path: Path) -> None:
    """Check that a folder exists, before anything is written.

    Raises:
        DataError: there is no such folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder. {nearest_path(path)}")
