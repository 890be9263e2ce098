"""The part of ``--help`` about plugins."""

import sys
from collections.abc import Iterator, Sequence

from timix_pl.core.choices import ALL
from timix_pl.core.plugins import load_plugins
from timix_pl.core.registry import Registry
from timix_pl.core.words import as_typed, listed


def plugin_help(arguments: Sequence[str] | None) -> str:
    """A section that lists all entries of plugins; empty if there are none, or if ``arguments`` do not contain ``--help``.

    Args:
        arguments: of the command; None: those of the process. The plugins that they name are imported.
    Raises:
        ConfigError: a plugin cannot be imported.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not {"-h", "--help"} & set(words):
        return ""
    for word in words:
        if word.startswith("plugins="):
            load_plugins(listed(word.removeprefix("plugins=")))
    lines = [line for registry in ALL for name in registry.names() if registry.plugin_of(name) for line in _lines(registry, name)]
    return "\n".join(["", "from plugins:", *lines, ""]) if lines else ""


def _lines(registry: Registry, name: str) -> Iterator[str]:
    yield f"  {f'{registry.key}={name}':<28} {registry.about(name)}"
    if options := registry.options(name):
        section = registry.key.partition(".")[0]
        # where a section chooses several entries, each entry's options are grouped under its name
        prefix = f"{section}.options." if registry.key.endswith((".kind", ".schedule")) else f"{section}.options.{name}."
        yield from (f"      {prefix}{option}= [{as_typed(parameter.default)}]" for option, parameter in options.items())
