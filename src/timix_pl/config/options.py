"""The schema as a flat list: one entry per dotted key. Messages and ``docs/configuration.md`` are written from it."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cache
from typing import Any

from timix_pl.config.schema import RootConfig

TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One key that people can set."""

    key: str
    type: Any
    default: Any
    help: str

    @property
    def takes(self) -> str:
        """What values it takes, in words."""
        return _in_words(self.type)

    @property
    def default_text(self) -> str:
        """The default as one types it."""
        return as_typed(self.default)


@cache
def schema_options() -> dict[str, Option]:
    """Every option by its dotted key, in the schema's order."""
    return {option.key: option for option in _walk(RootConfig, "")}


def nearest(name: str, names: Iterable[str]) -> str:
    """The names that look most like ``name``, three at most, or begin with it, as the end of a message; nothing when none is near."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6) or [other for other in names if name and other.startswith(name)][:3]
    return f"; nearest: {', '.join(close)}" if close else ""


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


def _walk(section: type, prefix: str) -> Iterator[Option]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _walk(hints[field.name], f"{prefix}{field.name}.")
        else:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield Option(prefix + field.name, hints[field.name], default, field.metadata["help"])


def _in_words(kind: Any) -> str:
    if kind is Any:
        return "a text or a list"
    if isinstance(kind, type) and issubclass(kind, Enum):
        *names, last = (member.name for member in kind)
        return f"{', '.join(names)} or {last}" if names else last
    if typing.get_origin(kind) is list:
        return f"a list, each item {_in_words(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is types.UnionType:
        return ", or ".join("null" if part is type(None) else _in_words(part) for part in typing.get_args(kind))
    return TYPE_NAMES[kind]
