"""Create the object that a choice in the configuration names."""

from typing import Any

from timix_pl.config.entry_options import entry_options, option_keys
from timix_pl.config.schema import RootConfig
from timix_pl.core.errors import ConfigError, TimixError, in_keys
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed


def create(cfg: RootConfig, registry: Registry, name: str, *given: Any, **more: Any) -> Any:
    """Call a registry entry with its options from the configuration.

    Args:
        given: positional arguments, which every entry of the registry takes.
        more: keyword arguments that override options.
    Raises:
        ConfigError: the entry raised a ``ValueError``; the message lists its options.
    """
    options = entry_options(cfg, registry, name) | more
    keys = {option: key for option, key in option_keys(registry, name).items() if option not in more}
    try:
        with in_keys(keys):
            return registry[name](*given, **options)
    except TimixError:
        raise
    except ValueError as error:
        listed = ", ".join(f"{option}={as_typed(value)}" for option, value in options.items() if option not in more)
        raise ConfigError([f"{registry.key}={name}{f' ({listed})' if listed else ''}: {error}"]) from error
