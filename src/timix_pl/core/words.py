"""Parts of messages: numbers of things, values as people type them, names that look alike."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

_MARKED = re.compile(r"`([^`]+)`")
_TYPED = {"None": "null", "True": "true", "False": "false"}


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


def with_keys(message: str, keys: Mapping[str, str]) -> str:
    """A component's message for somebody who set its parameters by the keys of a configuration.

    A message marks the name of a parameter with backquotes, with or without a value: ```block=9``: choose from 1 to 6``.

    Args:
        keys: what to say in place of a name (``block``), of a name and its equals sign (``mixing_level=``), or of a name with a value
            (``whole=False``). Marks that it does not have stay.

    >>> with_keys("`block=None` takes the last one, and not `dim`", {"block": "tune.block"})
    'tune.block=null takes the last one, and not `dim`'
    """

    def said(mark: re.Match[str]) -> str:
        name, equals, value = mark[1].partition("=")
        for known, rest in ((mark[1], ""), (name + equals, value), (name, equals + _TYPED.get(value, value))):
            if known in keys:
                return keys[known] + rest
        return mark[0]

    return _MARKED.sub(said, message)
