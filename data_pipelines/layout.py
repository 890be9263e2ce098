"""What every layout is: a function that reads a published collection, and whose parameters are its command line."""

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
    """Says in ``Annotated`` what the command line's help tells of a parameter.

    Args:
        metavar: what stands for the value.
    """

    help: str
    metavar: str | None = None


def layout(name: str) -> Callable[[Reader], Reader]:
    """Register a function that returns rows: the command ``timix-data NAME``. The first line of its docstring is the command's summary.

    Each parameter is an argument of the command: a positional one if the parameter is positional-only, else ``--name``, which may be left
    out if the parameter has a default. Types are ``str``, ``Path``, ``int``, ``float``, ``bool``, a ``Literal``, a list of these, or one of
    these or None. Annotate each as ``Annotated[Path, Argument("the folder of photos", "DIR")]``.
    """
    return LAYOUTS.register(name)


def summary(reader: Callable[..., Any]) -> str:
    """The first line of the docstring, without its full stop."""
    return (inspect.getdoc(reader) or "").partition("\n")[0].removesuffix(".")


def add_arguments(parser: argparse.ArgumentParser, reader: Callable[..., Any]) -> None:
    """Add what the reader's parameters say."""
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
    """The rows, with the arguments that :func:`add_arguments` has added."""
    parameters = inspect.signature(reader).parameters.values()
    given = [getattr(args, p.name) for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    named = {p.name: getattr(args, p.name) for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_ONLY}
    return reader(*given, **named)


def _parts(hint: Any) -> tuple[Any, Argument]:
    """The type of a parameter without ``None``, and what is said of it."""
    argument = Argument("")
    if get_origin(hint) is Annotated:
        hint, argument = get_args(hint)[:2]
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return (kinds[0] if type(None) in get_args(hint) else hint), argument


PhotoFolder = Annotated[Path, Argument("the folder of photos", "DIR")]
