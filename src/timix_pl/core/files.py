"""Write files and folders atomically, and suggest paths for those that do not exist."""

import difflib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``. It is renamed to ``path`` when the block succeeds, and removed when it raises."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``. It is synced to disk and replaces ``path`` when the block succeeds; it is removed when the
    block raises."""
    temporary, aside = (path.with_name(f".{path.name}.{secrets.token_hex(8)}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        if path.is_dir() and any(path.iterdir()):
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def missing_folders(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders that are empty, in the given order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def drop_lines_after(path: Path, step: int) -> None:
    """Keep only the lines of steps up to ``step`` in a JSON lines file. Damaged lines are dropped; an empty file is removed."""
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
    """The end of a message about a path that does not exist: its nearest existing folder, or an entry there with a similar name."""
    path = Path(os.path.abspath(missing))
    found = next(parent for parent in path.parents if parent.exists())
    names = os.listdir(found) if found.is_dir() else []
    close = difflib.get_close_matches(path.relative_to(found).parts[0], names, n=1)
    return f"The nearest existing path is {found / close[0] if close else found}."
