"""What can go wrong through the user's input. Every message names the thing, its value, the rule and the way out."""


class TimixError(Exception):
    """Base of all errors that a user can mend; the command line shows the message without a stack trace."""


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
