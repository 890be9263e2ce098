"""Options of the entries of registries: from the keys of a section, and from ``SECTION.options``, typed as the entry's constructor says.

A section such as ``mixing`` chooses an entry by name (``mixing.kind``) or several (``evaluation.tasks``, a list). The keyword-only
parameters of the entry's constructor are its options. The section may have a key for one (``mixing.min_side``); any other is set as
``mixing.options.NAME``, or ``evaluation.options.TASK.NAME`` where several entries are chosen.
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

    ``prefix``: what the dotted keys of its options begin with; ``given``: those that are set there.
    """

    registry: Registry
    name: str
    prefix: str
    given: Mapping[str, Any]


def chosen_entries(cfg: RootConfig, section: str) -> Iterator[Chosen]:
    """Every entry that a section chooses. Names that do not exist are passed over."""
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
    """The keyword arguments of a chosen entry. What is not set is left to the constructor's default."""
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
    """The modules outside of timix-pl that chosen entries come from."""
    modules = []
    for key, option in schema_options().items():
        registry, value = option.facts.registry, value_of(cfg, key)
        if registry is not None:
            names = value if isinstance(value, list) else [value]
            modules += [registry.plugin_of(name) for name in names if name in registry]
    return [module for module in dict.fromkeys(modules) if module is not None]


def entry_problems(cfg: RootConfig) -> Iterator[str]:
    """What is wrong with ``SECTION.options``: names that no chosen entry takes, and values of a wrong type."""
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
        yield f"{key}={as_typed(value)}: this option has a key of its own; set {section}.{name}"
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
            listed = f"choose from {', '.join(sorted(names))}" if names else "what is chosen has no options; leave it out"
            yield f"{prefix}{name}={as_typed(value)}: there is no such option{nearest(name, names)}; {listed}"
        elif f"{prefix}{name}." in taken and isinstance(value, Mapping):
            yield from _not_taken(value, f"{prefix}{name}.", taken)


def _typed(parameter: inspect.Parameter, value: Any) -> Any:
    """The value as the parameter's annotation says.

    Raises:
        OmegaConfBaseException: it is of another type.
    """
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    holder = dataclasses.make_dataclass("Holder", [("value", annotation, dataclasses.field(default="???"))])
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(holder), {"value": value})).value  # type: ignore[union-attr]
