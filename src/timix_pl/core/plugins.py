"""Load plugins: modules outside of timix-pl that add entries to its registries."""

import importlib
import logging
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from timix_pl.core.errors import ConfigError

log = logging.getLogger(__name__)

GROUP = "timix_pl.plugins"
"""The entry point group of installed packages. An entry point names a module."""


def load_plugins(modules: Iterable[str], said: str = "plugins") -> None:
    """Import plugin modules from the installed packages or the working directory. Importing them registers their entries.

    Args:
        modules: dotted names.
        said: where the modules are named, for messages.
    Raises:
        ConfigError: a module does not exist, or fails to import.
    """
    here = str(Path.cwd())
    if here not in sys.path:  # a console script starts without the working directory on its path
        sys.path.append(here)
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ConfigError([f"{said}: the plugin {module} imports {error.name}, which is not installed"]) from error
            raise ConfigError(
                [f"{said}: there is no module {module}; install its package, or start in the folder that contains it"]
            ) from error
        except ConfigError:
            raise
        except Exception as error:  # a plugin may fail in any way
            raise ConfigError([f"{said}: the plugin {module} cannot be imported: {type(error).__name__}: {error}"]) from error


@cache
def load_installed_plugins() -> list[str]:
    """Import the plugins of installed packages, once. A command may not need those that fail, so each of these is only a warning.

    Returns:
        A message for each that fails.
    """
    problems = []
    for point in entry_points(group=GROUP):
        try:
            load_plugins([point.module], f"entry point {point.name} of {point.dist.name if point.dist else 'an installed package'}")
        except ConfigError as error:
            problems += error.problems
    for problem in problems:
        log.warning("%s; its entries are left out", problem)
    return problems
