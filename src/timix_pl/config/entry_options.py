"""Options of registry entries, read from a section's keys and from ``SECTION.options``.

A section chooses one entry of a registry by name (``mixing.kind``) or several (``evaluation.tasks``, a list). The keyword-only parameters
of an entry's constructor are its options; their annotations give the types. Some options have a key in the section
(``mixing.min_side``, which is declared with ``TakenBy``). Any other is set as ``mixing.options.NAME``, or as
``evaluation.options.TASK.NAME`` where several entries are chosen.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from timix_pl.config.facts import value_of
from timix_pl.config.schema import RootConfig
from timix_pl.config.schema_options import in_words, literals, schema_options
from timix_pl.config.values import flat
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed, nearest

GIVEN = {EVALUATORS.key: {"num_workers": "data.num_workers"}}
"""What every entry of a registry gets besides its options: the key that it comes from, by parameter."""


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
    options = value_of(cfg, f"{section}.options")
    for key, option in schema_options().items():
        registry = option.facts.registry
        if registry is None or key.rpartition(".")[0] != section:
            continue
        value = value_of(cfg, key)
        for name in value if isinstance(value, list) else [value]:
            if name in registry:
                own = options.get(name, {}) if isinstance(value, list) else options
                yield Chosen(registry, name, prefix_of(registry, name), own if isinstance(own, Mapping) else {})


def prefix_of(registry: Registry, name: str) -> str:
    """How the dotted keys of an entry's options begin."""
    section, chosen = registry.key.rpartition(".")[0], schema_options()[registry.key]
    return f"{section}.options.{name}." if isinstance(chosen.default, list) else f"{section}.options."


def entry_options(cfg: RootConfig, registry: Registry, name: str) -> dict[str, Any]:
    """The keyword arguments for the constructor of a chosen entry. Options that are not set keep the constructor's defaults."""
    (given,) = [chosen.given for chosen in chosen_entries(cfg, _section(registry)) if (chosen.registry, chosen.name) == (registry, name)]
    parameters = registry.options(name)
    shared = {option: value_of(cfg, key) for option, key in shared_keys(registry).items() if option in parameters}
    own = {option: _typed(parameters[option], value) for option, value in given.items() if option in parameters}
    return {option: value for option, value in shared.items() if value is not None} | own


def shared_keys(registry: Registry) -> dict[str, str]:
    """The section's keys that set options of the registry's entries, by option."""
    names = {key: key.rpartition(".") for key, option in schema_options().items() if option.sets(registry)}
    return {name: key for key, (section, _, name) in names.items() if section == _section(registry)}


def option_keys(registry: Registry, name: str) -> dict[str, str]:
    """The dotted keys of an entry's options. What timix-pl gives to it has the key that it comes from."""
    prefix, outside = prefix_of(registry, name), given_keys(registry, name) | shared_keys(registry)
    return {option: outside.get(option, f"{prefix}{option}") for option in registry.options(name)}


def given_keys(registry: Registry, name: str) -> dict[str, str]:
    """What timix-pl gives to an entry, so that users do not set it: the key that it comes from, by parameter."""
    return {**GIVEN.get(registry.key, {}), **getattr(registry[name], "gathered", {})}


def listed_options(registry: Registry, name: str) -> Iterator[str]:
    """The options of an entry that users can set, as lines for ``--help``: ``KEY= [DEFAULT]``."""
    given, parameters = given_keys(registry, name), registry.options(name)
    for option, key in option_keys(registry, name).items():
        if option not in given or option in shared_keys(registry):
            parameter, own = parameters[option], schema_options().get(key)
            default = parameter.default if own is None or own.default is None else own.default
            words = f"; {in_words(parameter.annotation)}" if literals(parameter.annotation) else ""
            yield f"{key}= [{'must be set' if default is parameter.empty else as_typed(default)}{words}]"


def is_taken(cfg: RootConfig, key: str) -> bool:
    """Whether a chosen entry takes the option of a dotted key ``SECTION.options.NAME``."""
    section = key.partition(".options.")[0]
    return f"{section}.options" in schema_options() and any(
        f"{key}." == chosen.prefix or key in (f"{chosen.prefix}{option}" for option in chosen.registry.options(chosen.name))
        for chosen in chosen_entries(cfg, section)
    )


def with_defaults(cfg: RootConfig) -> dict[str, Any]:
    """The configuration by dotted keys, in which the options of chosen entries that are not set have the entries' defaults."""
    values = flat(cfg)
    for section in _sections():
        for registry, name, _, _ in chosen_entries(cfg, section):
            for option, key in option_keys(registry, name).items():
                default = registry.options(name)[option].default
                if default is not inspect.Parameter.empty and (key not in values or (values[key] is None and key in schema_options())):
                    values[key] = default.name if isinstance(default, Enum) else list(default) if isinstance(default, tuple) else default
    return values


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
    """Problems with the options of chosen entries: names that none takes, values of a wrong type, and options that must be set."""
    for section in _sections():
        entries, options, prefix = list(chosen_entries(cfg, section)), value_of(cfg, f"{section}.options"), f"{section}.options."
        # timix-pl's own entries fit the schema. To look at them would import PyTorch, which takes seconds.
        if not options and all(registry.plugin_of(name) is None for registry, name, _, _ in entries):
            continue
        known: dict[str, dict[str, str]] = {prefix: {}}
        for chosen in entries:
            known.setdefault(chosen.prefix, {}).update(option_keys(chosen.registry, chosen.name))
            if chosen.prefix != prefix:
                known[prefix][chosen.name] = f"{prefix}{chosen.name}"
            yield from _problems_of_entry(cfg, chosen)
        yield from _not_taken(options, prefix, known)


def _problems_of_entry(cfg: RootConfig, chosen: Chosen) -> Iterator[str]:
    keys, shared = option_keys(chosen.registry, chosen.name), shared_keys(chosen.registry)
    for option, parameter in chosen.registry.options(chosen.name).items():
        key, typed = keys[option], f"{chosen.prefix}{option}"
        if key != typed and option in chosen.given:
            way_out = f"this option has its own key; set {key}" if key in schema_options() else f"timix-pl gives {key}; remove it"
            yield f"{typed}={as_typed(chosen.given[option])}: {way_out}"
        elif option in chosen.given:
            yield from _wrong_type(typed, chosen.given[option], parameter)
        elif option in shared and value_of(cfg, key) is not None:
            yield from _wrong_type(key, value_of(cfg, key), parameter)
        elif key == typed and parameter.default is parameter.empty:
            needs = f"{chosen.registry.key}={chosen.name} needs it"
            yield f"{typed} is not set: {needs}; it takes {in_words(parameter.annotation)}"


def _wrong_type(key: str, value: Any, parameter: inspect.Parameter) -> Iterator[str]:
    try:
        _typed(parameter, value)
    except OmegaConfBaseException:
        default = "there is no default" if parameter.default is parameter.empty else f"the default is {as_typed(parameter.default)}"
        yield f"{key}={as_typed(value)}: it takes {in_words(parameter.annotation)}; {default}"


def _not_taken(given: Mapping[str, Any], prefix: str, known: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Names without an option. ``known``: by prefix, the keys that set the options."""
    keys = {name: key for name, key in known.get(prefix, {}).items() if key == f"{prefix}{name}" or key in schema_options()}
    names = [name if key == f"{prefix}{name}" else key for name, key in sorted(keys.items())]
    for name, value in given.items():
        if name not in known.get(prefix, {}):
            listed = f"choose from {', '.join(names)}" if names else "what is chosen has no options; remove it"
            yield f"{prefix}{name}={as_typed(value)}: there is no such option{nearest(name, names)}; {listed}"
        elif f"{prefix}{name}." in known and isinstance(value, Mapping):
            yield from _not_taken(value, f"{prefix}{name}.", known)
        elif f"{prefix}{name}." in known:
            yield f"{prefix}{name}={as_typed(value)}: it takes options by name, as in {prefix}{name}.NAME=VALUE"


def _typed(parameter: inspect.Parameter, value: Any) -> Any:
    """The value, converted to the type of the parameter's annotation. A type that OmegaConf does not know is not checked.

    Raises:
        OmegaConfBaseException: the value cannot be converted.
    """
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    if allowed := literals(annotation):
        if value not in allowed:
            raise ValidationError(f"{value} is not one of {allowed}")
        return value
    holder = dataclasses.make_dataclass("Holder", [("value", annotation, dataclasses.field(default="???"))])
    try:
        schema = OmegaConf.structured(holder)
    except OmegaConfBaseException:
        return value
    return OmegaConf.to_object(OmegaConf.merge(schema, {"value": value})).value  # type: ignore[union-attr]


def _section(registry: Registry) -> str:
    return registry.key.rpartition(".")[0]


def _sections() -> list[str]:
    """The sections that choose entries with options."""
    return [key.removesuffix(".options") for key in schema_options() if key.endswith(".options")]
