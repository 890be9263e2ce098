"""The argument syntax that the commands share: overrides KEY=VALUE and a few flags."""

import argparse
from collections.abc import Sequence

import timix_pl
from timix_pl.config.schema_options import schema_options


def parser(command: str, description: str, details: str) -> argparse.ArgumentParser:
    """An argument parser that accepts overrides before, between and after flags; ``--help`` shows ``details`` after the flags."""
    made = argparse.ArgumentParser(
        command,
        usage=f"{command} [flags] [KEY=VALUE ...]",
        description=description,
        epilog=details.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"{command} {timix_pl.__version__}")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options, as described below")
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse ``arguments``, by default those of the process. An unknown flag ends the process with status 2."""
    known, unknown = made.parse_known_intermixed_args(arguments)
    for before, word, after in zip(known.overrides, known.overrides[1:], known.overrides[2:], strict=False):
        if word == "=":
            made.error(f"{before} = {after}: write {before}={after}, without spaces")
    if unknown:
        name = unknown[0].partition("=")[0].lstrip("-").replace("-", "_")
        meant = [f"{key}=..." for key in schema_options() if name == key or key.endswith((f".{name}", f"_{name}"))]
        hint = f", such as {' or '.join(meant)}" if meant else ""
        made.error(f"there is no flag {unknown[0]}: options are written KEY=VALUE, without dashes{hint}; {made.prog} --help lists them")
    return known
