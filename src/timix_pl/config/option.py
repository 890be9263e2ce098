"""How the schema declares an option: all that is known about it, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from timix_pl.config.rules import Rule
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed


class Resume(Enum):
    """Whether a run that goes on may set an option differently.

    ``free``: it may. ``same_run``: it may only in another ``run_dir``. ``same_model``: never, the stored weights or
    the stored state of the optimizer depend on it.
    """

    free = auto()
    same_run = auto()
    same_model = auto()


def value_of(cfg: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        cfg = getattr(cfg, name)
    return cfg


class Condition(Protocol):
    """When an option is used."""

    key: str
    """The option that decides."""

    def holds(self, cfg: Any, option: str) -> bool:
        """Whether the option of that dotted key is used in a configuration."""

    def words(self, option: str) -> str:
        """The values at which it is used, after "choose" in a message."""


class When:
    """Used at some values of another option."""

    def __init__(self, key: str, *values: Any):
        self.key, self.values = key, values

    def holds(self, cfg: Any, option: str) -> bool:
        return value_of(cfg, self.key) in self.values

    def words(self, option: str) -> str:
        return f"{self.key}={' or '.join(as_typed(value) for value in self.values)}"


class Unless(When):
    """Not used at some values of another option."""

    def holds(self, cfg: Any, option: str) -> bool:
        return not super().holds(cfg, option)

    def words(self, option: str) -> str:
        return f"another {self.key} than {' or '.join(as_typed(value) for value in self.values)}"


class Includes:
    """Used where the value of another option, a list, has one of some items."""

    def __init__(self, key: str, *values: Any):
        self.key, self.values = key, values

    def holds(self, cfg: Any, option: str) -> bool:
        return any(value in value_of(cfg, self.key) for value in self.values)

    def words(self, option: str) -> str:
        return f"{' or '.join(as_typed(value) for value in self.values)} among {self.key}"


class TakenBy:
    """Used where a chosen entry of a registry has an option of the same name."""

    def __init__(self, registry: Registry):
        self.registry, self.key = registry, registry.key

    def holds(self, cfg: Any, option: str) -> bool:
        chosen = value_of(cfg, self.key)
        return any(self._takes(name, option) for name in (chosen if isinstance(chosen, list) else [chosen]))

    def words(self, option: str) -> str:
        return f"{self.key}={' or '.join(name for name in self.registry.names() if self._takes(name, option))}"

    def _takes(self, name: str, option: str) -> bool:
        return name in self.registry and option.rpartition(".")[2] in self.registry.options(name)


class Trait(TakenBy):
    """Used where the chosen entry of a registry has an attribute of some value."""

    def __init__(self, registry: Registry, name: str, value: Any):
        super().__init__(registry)
        self.name, self.value = name, value

    def _takes(self, name: str, option: str) -> bool:
        return name in self.registry and getattr(self.registry[name], self.name) == self.value


class AnyOf:
    """Used where one of several conditions holds."""

    def __init__(self, *conditions: Condition):
        self.conditions, self.key = conditions, conditions[0].key

    def holds(self, cfg: Any, option: str) -> bool:
        return any(condition.holds(cfg, option) for condition in self.conditions)

    def words(self, option: str) -> str:
        return ", or ".join(condition.words(option) for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about an option. None: as of its section.

    Args:
        help: what it does.
        title: of a section, in the documentation.
        within: the values that it may take.
        registry: its values are the names of this registry.
        used: when it has an effect, besides the conditions of its section.
        resume: whether a run that goes on may change it.
        of_model: it describes the model; a fine-tuning run takes it from the run that it starts from.
        in_evaluation: ``timix-evaluate`` takes it.
        on_card: the model card shows it.
        frequent: ``--help`` shows it.
    """

    help: str = ""
    title: str = ""
    within: Rule | None = None
    registry: Registry | None = None
    used: Sequence[Condition] = ()
    resume: Resume | None = None
    of_model: bool | None = None
    in_evaluation: bool | None = None
    on_card: bool = False
    frequent: bool = False


def option(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass field for an option; mutable defaults are copied per instance. For ``facts`` see :class:`Facts`."""
    metadata = {"facts": Facts(help=help, **facts)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type, title: str, **facts: Any) -> Any:
    """A dataclass field for a section; its facts are those of all its options that do not say otherwise."""
    return field(default_factory=kind, metadata={"facts": Facts(title=title, **facts)})
