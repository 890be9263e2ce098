"""Options of registry entries, read from a section's keys and from ``SECTION.options``.

A section chooses one entry of a registry by name (``mixing.kind``) or several (``evaluation.tasks``, a list). The keyword-only parameters
of an entry's constructor are its options; their annotations give the types. Some options have a key in the section
(``mixing.min_side``). Any other is set as ``mixing.options.NAME``, or as ``evaluation.options.TASK.NAME`` where several entries are chosen.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from timix_pl.config.option import value_of
from timix_pl.config.options import in_words, schema_options
from timix_pl.config.schema import RootConfig
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed, nearest


class Chosen(NamedTuple):
    """An entry that a section chooses.

    ``prefix``: how the dotted keys of its options begin; ``given``: the options that are set under this prefix.
    """

    registry: Registry
    name: str
    prefix: str
    given: Mapping[str, Any]


def chosen_entries(cfg: RootConfig, section: str) -> Iterator[Chosen]:
    """Every entry that a section chooses. Unknown names are skipped; ``validate.py`` reports them."""
    options, prefix = value_of(cfg, f"{section}.options"), f"{section}.options."
    for key, option in schema_options().items():
        registry = option.facts.registry
        if registry is None or key.rpartition(".")[0] != section:
            continue
        value = value_of(cfg, key)
        if isinstance(value, list):
            yield from (Chosen(registry, name, f"{prefix}{name}.", options.get(name, {})) for name in value if name in registry)
        elif value in registry:
            yield Chosen(registry, value, prefix, options)


def entry_options(cfg: RootConfig, registry: Registry, name: str) -> dict[str, Any]:
    """The keyword arguments for the constructor of a chosen entry. Options that are not set keep the constructor's defaults."""
    section = registry.key.rpartition(".")[0]
    (given,) = [entry.given for entry in chosen_entries(cfg, section) if entry.registry is registry and entry.name == name]
    parameters, values = registry.options(name), value_of(cfg, section)
    own = {option: getattr(values, option) for option in parameters if hasattr(values, option)}
    return own | {option: _typed(parameters[option], value) for option, value in given.items() if option in parameters}


def option_keys(cfg: RootConfig, registry: Registry, name: str) -> dict[str, str]:
    """The dotted keys of a chosen entry's options."""
    section = registry.key.rpartition(".")[0]
    (chosen,) = [entry for entry in chosen_entries(cfg, section) if entry.registry is registry and entry.name == name]
    values = value_of(cfg, section)
    return {option: f"{section}.{option}" if hasattr(values, option) else f"{chosen.prefix}{option}" for option in registry.options(name)}


def modules_of_entries(cfg: RootConfig) -> list[str]:
    """The plugin modules that define chosen entries."""
    modules = []
    for key, option in schema_options().items():
        registry, value = option.facts.registry, value_of(cfg, key)
        if registry is not None:
            names = value if isinstance(value, list) else [value]
            modules += [registry.plugin_of(name) for name in names if name in registry]
    return [module for module in dict.fromkeys(modules) if module is not None]


def entry_problems(cfg: RootConfig) -> Iterator[str]:
    """Problems with ``SECTION.options``: names that no chosen entry takes, and values of a wrong type."""
    for key in schema_options():
        section, _, last = key.rpartition(".")
        if last == "options" and value_of(cfg, key):
            yield from _problems_of_section(cfg, section)


def _problems_of_section(cfg: RootConfig, section: str) -> Iterator[str]:
    taken: dict[str, set[str]] = {f"{section}.options.": set()}
    for chosen in chosen_entries(cfg, section):
        parameters = chosen.registry.options(chosen.name)
        taken.setdefault(chosen.prefix, set()).update(parameters)
        if chosen.prefix != f"{section}.options.":
            taken[f"{section}.options."].add(chosen.name)
        for option, value in chosen.given.items():
            if option in parameters:
                yield from _problem(f"{chosen.prefix}{option}", value, parameters[option])
    yield from _not_taken(value_of(cfg, f"{section}.options"), f"{section}.options.", taken)


def _problem(key: str, value: Any, parameter: inspect.Parameter) -> Iterator[str]:
    section, _, name = key.partition(".options.")
    if f"{section}.{name}" in schema_options():
        yield f"{key}={as_typed(value)}: this option has its own key; set {section}.{name}"
        return
    try:
        _typed(parameter, value)
    except OmegaConfBaseException:
        default = "none" if parameter.default is parameter.empty else as_typed(parameter.default)
        yield f"{key}={as_typed(value)}: it takes {in_words(parameter.annotation)}; the default is {default}"


def _not_taken(given: Mapping[str, Any], prefix: str, taken: Mapping[str, set[str]]) -> Iterator[str]:
    names = taken.get(prefix, set())
    for name, value in given.items():
        if name not in names:
            listed = f"choose from {', '.join(sorted(names))}" if names else "what is chosen has no options; remove it"
            yield f"{prefix}{name}={as_typed(value)}: there is no such option{nearest(name, names)}; {listed}"
        elif f"{prefix}{name}." in taken and isinstance(value, Mapping):
            yield from _not_taken(value, f"{prefix}{name}.", taken)


def _typed(parameter: inspect.Parameter, value: Any) -> Any:
    """The value, converted to the type of the parameter's annotation.

    Raises:
        OmegaConfBaseException: the value cannot be converted.
    """
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    holder = dataclasses.make_dataclass("Holder", [("value", annotation, dataclasses.field(default="???"))])
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(holder), {"value": value})).value  # type: ignore[union-attr]
