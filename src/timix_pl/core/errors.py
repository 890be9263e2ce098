"""What can go wrong through the user's input. Every message names the thing, its value, the rule and the way out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timix_pl.core.words import with_keys


class TimixError(Exception):
    """Base of all errors that a user can repair; the command line shows the message without a stack trace.

    Components know no configuration: their messages name their own parameters, in backquotes. See :func:`in_keys`.
    """


@contextmanager
def in_keys(keys: Mapping[str, str]) -> Iterator[None]:
    """A block whose errors, where a component raised them, name the keys of a configuration in place of the component's parameters.

    Args:
        keys: see :func:`timix_pl.core.words.with_keys`.
    """
    try:
        yield
    except TimixError as error:
        error.args = tuple(with_keys(arg, keys) if isinstance(arg, str) else arg for arg in error.args)
        raise


class ConfigError(TimixError, ValueError):
    """The configuration is wrong; ``problems`` holds all of them, one message each."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(TimixError):
    """Shards, samples or raw collections are missing, broken or inconsistent."""


class ModelError(TimixError):
    """An architecture, weights file or tower cannot be used."""


class ShapeError(TimixError, ValueError):
    """Tensors do not fit together."""


class NonFiniteError(TimixError):
    """A loss or gradient became NaN or infinite; the weights were not touched."""


STATUS_OF_A_STOPPED_RUN = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again."""


class StoppedBySignal(Exception):
    """The run ended because it was told to, after ``step``, of which a checkpoint is saved. Nothing is wrong."""

    def __init__(self, step: int):
        self.step = step
        super().__init__(f"stopped after step {step}")


class LostRankError(TimixError):
    """An exchange between ranks failed, because another rank is gone; that one tells why, if it could. ``status``: of the command."""

    def __init__(self, message: str, status: int = 2):
        self.status = status
        super().__init__(message)


class RunError(TimixError):
    """A run directory or checkpoint does not belong to this run or cannot be used."""
