"""Files that are there whole, or not at all; and what people may have meant by a path that is not there."""

import difflib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends well and removed when it raises."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def missing_folders(folder: Path) -> list[Path]:
    """A folder and those above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that hold nothing, in the order given."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def drop_lines_after(path: Path, step: int) -> None:
    """Leave in a JSON lines file the lines of steps up to ``step``, without what a kill or a power cut spoiled; with none left, no file."""
    if not path.exists():
        return
    with atomic_path(path) as temporary:
        with path.open("rb") as lines, temporary.open("wb") as kept:
            kept.writelines(line for line in lines if _step_of(line) <= step)
        empty = temporary.stat().st_size == 0
    if empty:
        path.unlink()


def _step_of(line: bytes) -> float:
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def nearest_path(missing: Path) -> str:
    """The end of a message about a path that does not exist: how much of it does, and the entry there that looks most like the rest."""
    path = Path(os.path.abspath(missing))
    found = next(parent for parent in path.parents if parent.exists())
    names = os.listdir(found) if found.is_dir() else []
    close = difflib.get_close_matches(path.relative_to(found).parts[0], names, n=1)
    return f"The nearest existing path is {found / close[0] if close else found}."
