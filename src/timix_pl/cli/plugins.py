"""The part of ``--help`` about plugins."""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

from timix_pl.config.schema_options import schema_options
from timix_pl.core.choices import ALL
from timix_pl.core.registry import Registry


def plugin_help(arguments: Sequence[str] | None) -> str:
    """A section that lists all entries of plugins; empty if there are none, or if ``arguments`` do not contain ``--help``.

    Args:
        arguments: of the command; None: those of the process. The plugins that they name are imported.
    Raises:
        ConfigError: a plugin cannot be imported, or there is no folder ``--config-dir``.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not {"-h", "--help"} & set(words):
        return ""
    folders = [after for word, after in pairwise(words) if word == "--config-dir"]
    folders += [word.removeprefix("--config-dir=") for word in words if word.startswith("--config-dir=")]
    if folders or any(word.startswith("plugins=") for word in words):
        from timix_pl.config.compose import load_named_plugins, search_path_override

        load_named_plugins([*map(search_path_override, folders[-1:]), *words])
    lines = [line for registry in ALL for name in registry.names() if registry.plugin_of(name) for line in _lines(registry, name)]
    return "\n".join(["", "from plugins:", *lines, ""]) if lines else ""


def _lines(registry: Registry, name: str) -> Iterator[str]:
    yield f"  {f'{registry.key}={name}':<28} {registry.about(name)}"
    if registry.key in schema_options() and "." in registry.key:
        from timix_pl.config.entry_options import listed_options

        yield from (f"      {line}" for line in listed_options(registry, name))
