"""How the schema declares an option: its default, help text and rules, in one place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from timix_pl.config.rules import Rule
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed


class Resume(Enum):
    """Whether an option may change when a run is resumed.

    ``free``: yes. ``same_run``: only in another ``run_dir``. ``same_model``: never, because the stored weights or the stored optimizer
    state depend on it.
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
    """The option that the condition depends on."""

    def holds(self, cfg: Any, option: str) -> bool:
        """Whether the option of that dotted key is used in a configuration."""

    def words(self, option: str) -> str:
        """The values with which it is used; they follow "choose" in a message."""


class When:
    """Used with some values of another option."""

    def __init__(self, key: str, *values: Any):
        self.key, self.values = key, values

    def holds(self, cfg: Any, option: str) -> bool:
        return value_of(cfg, self.key) in self.values

    def words(self, option: str) -> str:
        return f"{self.key}={' or '.join(as_typed(value) for value in self.values)}"


class Unless(When):
    """Not used with some values of another option."""

    def holds(self, cfg: Any, option: str) -> bool:
        return not super().holds(cfg, option)

    def words(self, option: str) -> str:
        return f"another {self.key} than {' or '.join(as_typed(value) for value in self.values)}"


class Includes:
    """Used if another option, a list, contains one of some items."""

    def __init__(self, key: str, *values: Any):
        self.key, self.values = key, values

    def holds(self, cfg: Any, option: str) -> bool:
        return any(value in value_of(cfg, self.key) for value in self.values)

    def words(self, option: str) -> str:
        return f"{' or '.join(as_typed(value) for value in self.values)} among {self.key}"


class _ByEntry(ABC):
    """Used if a chosen entry of a registry is of some kind."""

    def __init__(self, registry: Registry):
        self.registry, self.key = registry, registry.key

    def holds(self, cfg: Any, option: str) -> bool:
        chosen = value_of(cfg, self.key)
        return any(self._takes(name, option) for name in (chosen if isinstance(chosen, list) else [chosen]))

    def words(self, option: str) -> str:
        return f"{self.key}={' or '.join(name for name in self.registry.names() if self._takes(name, option))}"

    @abstractmethod
    def _takes(self, name: str, option: str) -> bool:
        """Whether the entry of that name is of this kind."""


class TakenBy(_ByEntry):
    """Used if a chosen entry of a registry has an option of the same name. The option sets it."""

    def _takes(self, name: str, option: str) -> bool:
        return name in self.registry and option.rpartition(".")[2] in self.registry.options(name)


class Trait(_ByEntry):
    """Used if an attribute of the chosen entry of a registry has some value."""

    def __init__(self, registry: Registry, name: str, value: Any):
        super().__init__(registry)
        self.name, self.value = name, value

    def _takes(self, name: str, option: str) -> bool:
        return name in self.registry and getattr(self.registry[name], self.name) == self.value


class AnyOf:
    """Used if one of several conditions holds."""

    def __init__(self, *conditions: Condition):
        self.conditions, self.key = conditions, conditions[0].key

    def holds(self, cfg: Any, option: str) -> bool:
        return any(condition.holds(cfg, option) for condition in self.conditions)

    def words(self, option: str) -> str:
        return ", or ".join(condition.words(option) for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about an option or a section. None: inherited from the section around it.

    Args:
        help: what the option does.
        title: heading of the section in the documentation.
        within: the values that the option may take.
        registry: the option's values are names of this registry.
        used: conditions under which the option has an effect, in addition to those of its section.
        resume: whether the option may change when a run is resumed.
        of_model: the option describes the model; a fine-tuning run copies it from the run that it starts from.
        in_evaluation: ``timix-evaluate`` takes the option.
        on_card: the model card shows the option.
        frequent: ``--help`` shows the option.
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
    """A dataclass field for a section. Its facts apply to all its options, unless an option overrides them."""
    return field(default_factory=kind, metadata={"facts": Facts(title=title, **facts)})
