"""Files that are there whole, or not at all; and what people may have meant by a path that is not there."""

import difflib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
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


def drop_lines_after(path: Path, step: int) -> None:
    """Cut a JSON lines file whose ``step`` never falls before its first line of a later step, or before one that a kill cut off."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            end += len(line)
    os.truncate(path, end)


def nearest_path(missing: Path) -> str:
    """The end of a message about a path that does not exist: how much of it does, and the entry there that looks most like the rest."""
    path = Path(os.path.abspath(missing))
    found = next(parent for parent in path.parents if parent.exists())
    names = os.listdir(found) if found.is_dir() else []
    close = difflib.get_close_matches(path.relative_to(found).parts[0], names, n=1)
    return f"The nearest existing path is {found / close[0] if close else found}."
