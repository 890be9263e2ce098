"""The schema as a flat list, one entry per dotted key. Messages and ``docs/configuration.md`` are generated from it."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

from timix_pl.config.facts import AnyOf, Condition, Facts, Resume, TakenBy
from timix_pl.config.schema import RootConfig
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed

TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One key that users can set. ``facts`` include those of its section; ``title`` is that of the outermost section."""

    key: str
    type: Any
    default: Any
    facts: Facts
    title: str

    @property
    def takes(self) -> str:
        """The values that it takes, in words."""
        registry = self.facts.registry
        if registry is None:
            return in_words(self.type)
        of_plugins = f"a plugin's {registry.thing}"
        names = ", ".join([*([registry.none] if registry.none else []), *registry.own_names(), f"or {of_plugins}"])
        names = names.removeprefix("or ")
        return f"a list, each item {names}" if isinstance(self.default, list) else names

    @property
    def default_text(self) -> str:
        """The default, as a user would type it."""
        return as_typed(self.default)

    def unmet(self, cfg: Any) -> Condition | None:
        """The first of its conditions that does not hold; None if the option is used."""
        return next((condition for condition in self.facts.used if not condition.holds(cfg, self.key)), None)

    def sets(self, registry: Registry) -> bool:
        """Whether it sets the option of the same name of the registry's entries."""
        conditions = [part for used in self.facts.used for part in (used.conditions if isinstance(used, AnyOf) else [used])]
        return any(isinstance(condition, TakenBy) and condition.registry is registry for condition in conditions)


@cache
def schema_options() -> dict[str, Option]:
    """Every option by its dotted key, in the order of the schema."""
    root = Facts(resume=Resume.same_run, of_model=False, in_evaluation=False, title="The run")
    return {option.key: option for option in _walk(RootConfig, "", root)}


def _walk(section: type, prefix: str, around: Facts) -> Iterator[Option]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        facts = _joined(field.metadata["facts"], around)
        if dataclasses.is_dataclass(hints[field.name]):
            inner = facts if not prefix else dataclasses.replace(facts, title=around.title)
            yield from _walk(hints[field.name], f"{prefix}{field.name}.", inner)
        else:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield Option(prefix + field.name, hints[field.name], default, facts, around.title)


def _joined(own: Facts, around: Facts) -> Facts:
    """The facts of an option or section inside another section. All conditions must hold; the outer one's come first."""
    inherited = {name: getattr(around, name) for name in ("resume", "of_model", "in_evaluation") if getattr(own, name) is None}
    return dataclasses.replace(own, used=(*around.used, *own.used), **inherited)


def in_words(kind: Any) -> str:
    """The values of a type, in words."""
    if kind is Any:
        return "a text or a list"
    if typing.get_origin(kind) is typing.Literal:
        *values, last = map(as_typed, typing.get_args(kind))
        return f"{', '.join(values)} or {last}" if values else last
    if isinstance(kind, type) and issubclass(kind, Enum):
        *names, last = (member.name for member in kind)
        return f"{', '.join(names)} or {last}" if names else last
    if typing.get_origin(kind) is list:
        return f"a list, each item {in_words(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is dict:
        return "options by name"
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return ", or ".join("null" if part is type(None) else in_words(part) for part in typing.get_args(kind))
    return TYPE_NAMES.get(kind, "a value")


def literals(kind: Any) -> list[Any]:
    """The values of a ``Literal``, also of one that may be None; empty for any other type."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    parts = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else ()
    if not any(typing.get_origin(part) is typing.Literal for part in parts):
        return []
    return [value for part in parts for value in ([None] if part is type(None) else literals(part))]
