"""Parts of messages: numbers of things, values as people type them, names that look alike."""

import difflib
from collections.abc import Iterable
from typing import Any


def counted(number: int, noun: str) -> str:
    """``1 shard``, ``2 shards``, ``1,000 shards``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message: at most three of ``names`` that look like ``name`` or begin with it. Empty if there is none."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or [other for other in names if name and other.startswith(name)][:3]
    return f"; nearest: {', '.join(close)}" if close else ""


def listed(value: str) -> list[str]:
    """The items of a list as it is typed: ``[a,b]``, ``a,b`` or ``a``."""
    return [item.strip() for item in value.strip("[]").split(",") if item.strip()]


def as_typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(as_typed(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
