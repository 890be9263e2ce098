"""Registries: one table of names per choice."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from timix_pl.core.errors import ConfigError
from timix_pl.core.plugins import load_installed_plugins
from timix_pl.core.words import nearest

Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry:
    """The entries of one choice, by name.

    An entry registers itself where it is defined. Each entry of timix-pl is in its own module, ``PACKAGE.NAME``, which is imported when the
    entry is first used, so that names can be listed without importing torch. Plugins register in the same way.

    Args:
        key: the option that makes the choice, such as ``mixing.kind``.
        thing: what an entry is, such as "mixing strategy".
        package: the package whose modules are timix-pl's own entries; None if it has none.
        none: the value that means "no entry", if there is one.
    """

    def __init__(self, key: str, thing: str, package: str | None = None, *, none: str | None = None):
        self.key, self.thing, self.package, self.none = key, thing, package, none
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that registers a class or function, and stores the name in its attribute ``choice``.

        Raises:
            ConfigError: another entry has the name.
        """

        def add(entry: Entry) -> Entry:
            other = self._entries.get(name)
            is_ours = entry.__module__ == f"{self.package}.{name}"
            if (other is not None and other.__module__ != entry.__module__) or (name in self.own_names() and not is_ours):
                before = other.__module__ if other is not None else f"{self.package}.{name}"
                raise ConfigError(
                    [f"{self.key}: {entry.__module__} registers the {self.thing} '{name}', which {before} has already; choose another name"]
                )
            self._entries[name] = entry
            entry.choice = name  # type: ignore[attr-defined]
            return entry

        return add

    def names(self) -> list[str]:
        """All names: timix-pl's own, then those of plugins."""
        load_installed_plugins()
        own = self.own_names()
        return [*own, *sorted(name for name in self._entries if name not in own)]

    def __contains__(self, name: str) -> bool:
        return name in self.own_names() or name in self._entries or name in self.names()

    def __getitem__(self, name: str) -> Any:
        """The entry with that name.

        Raises:
            ConfigError: there is none; the message lists the nearest names, then all.
        """
        if name not in self._entries and name in self.own_names():
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._entries:
            load_installed_plugins()
        if name not in self._entries:
            raise ConfigError([self.unknown(name)])
        return self._entries[name]

    def unknown(self, name: str) -> str:
        """The message for a name that no entry has."""
        names = [*([self.none] if self.none else []), *self.names()]
        choose = f"choose from {', '.join(names)}, or name" if names else "name"
        problem = f"{self.key}={name}: there is no {self.thing} '{name}'{nearest(name, names)}"
        return "; ".join([problem, f"{choose} the plugin that has it with plugins=[MODULE]", *load_installed_plugins()])

    def plugin_of(self, name: str) -> str | None:
        """The plugin module that defines an entry; None for timix-pl's own entries."""
        return None if name in self.own_names() else self[name].__module__

    def about(self, name: str) -> str:
        """The first line of an entry's docstring."""
        if name in self.own_names():
            # Parsed, not imported, because --help would have to wait for torch.
            file = Path(importlib.import_module(str(self.package)).__path__[0]) / f"{name}.py"
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        else:
            text = inspect.getdoc(self[name])
        return (text or "").partition("\n")[0].replace("``", "")

    def options(self, name: str) -> Mapping[str, inspect.Parameter]:
        """The options of an entry: the keyword-only parameters of its constructor. timix-pl passes the positional ones."""
        parameters = inspect.signature(self[name], eval_str=True).parameters
        return {key: parameter for key, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}

    def own_names(self) -> list[str]:
        """The names of timix-pl's own entries."""
        if self.package is None:
            return []
        folder = importlib.import_module(self.package).__path__
        return sorted(module.name for module in pkgutil.iter_modules(folder))
