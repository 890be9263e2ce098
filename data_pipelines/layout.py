"""Layouts: functions that read a published collection. Their parameters define the arguments of their command."""

import argparse
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from timix_pl.core.choices import LAYOUTS

Reader = TypeVar("Reader", bound=Callable[..., Any])


@dataclass(frozen=True)
class Argument:
    """The help text of a parameter, used in ``Annotated``.

    Args:
        metavar: placeholder for the value in the help.
    """

    help: str
    metavar: str | None = None


def layout(name: str) -> Callable[[Reader], Reader]:
    """Register a function that returns rows as the command ``timix-data NAME``. The first line of its docstring is the command's summary.

    Each parameter is an argument of the command: positional if the parameter is positional-only, else ``--name``, which is optional if the
    parameter has a default. Types are ``str``, ``Path``, ``int``, ``float``, ``bool``, a ``Literal``, a list of these, or any of these or
    None. Annotate each as ``Annotated[Path, Argument("the folder of photos", "DIR")]``.
    """
    return LAYOUTS.register(name)


def summary(reader: Callable[..., Any]) -> str:
    """The first line of the docstring, without its full stop."""
    return (inspect.getdoc(reader) or "").partition("\n")[0].removesuffix(".")


def add_arguments(parser: argparse.ArgumentParser, reader: Callable[..., Any]) -> None:
    """Add an argument for each parameter of the reader."""
    hints = get_type_hints(reader, include_extras=True)
    for name, parameter in inspect.signature(reader).parameters.items():
        flag = name.replace("_", "-")
        kind, argument = _parts(hints[name])
        options: dict[str, Any] = {"help": argument.help}
        if kind is bool:
            word = f"--no-{flag}" if parameter.default else f"--{flag}"
            parser.add_argument(word, dest=name, action="store_false" if parameter.default else "store_true", **options)
            continue
        if get_origin(kind) is list:
            (kind,) = get_args(kind)
            options["nargs"] = "+"
        if get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        else:
            options |= {"type": kind, "metavar": argument.metavar}
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            parser.add_argument(name, **options)
        else:
            has_default = parameter.default is not inspect.Parameter.empty
            options |= {"default": parameter.default} if has_default else {"required": True}
            parser.add_argument(f"--{flag}", dest=name, **options)


def read(reader: Callable[..., Any], args: argparse.Namespace) -> Iterator[Any]:
    """Call the reader with the arguments that :func:`add_arguments` has added. Returns its rows."""
    parameters = inspect.signature(reader).parameters.values()
    given = [getattr(args, p.name) for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    named = {p.name: getattr(args, p.name) for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
    return reader(*given, **named)


def _parts(hint: Any) -> tuple[Any, Argument]:
    """The type of a parameter without ``None``, and its :class:`Argument`."""
    argument = Argument("")
    if get_origin(hint) is Annotated:
        hint, argument = get_args(hint)[:2]
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return (kinds[0] if type(None) in get_args(hint) else hint), argument


PhotoFolder = Annotated[Path, Argument("the folder of photos", "DIR")]
