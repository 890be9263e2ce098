"""How a command ends: an error that the user can fix gives a message and an exit status, but no stack trace."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from timix_pl.core.errors import ConfigError, TimixError
from timix_pl.core.launched import rank_at_start

RANK_0_TELLS_S = 5
"""Seconds that the other ranks wait before they report an error. If all ranks have the same error, rank 0 reports it in this time and the
launcher ends the others, so that it is shown once."""


@contextmanager
def clean_exit(command: str) -> Iterator[None]:
    """On a ``TimixError`` or ``OSError``, print its message and exit with its status (2 by default); on Ctrl-C exit with status 130.

    TIMIX_TRACEBACK=1 shows the stack trace.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        rank = rank_at_start()
        if rank > 0:
            time.sleep(RANK_0_TELLS_S)
        if os.environ.get("TIMIX_TRACEBACK") == "1" or not isinstance(error, TimixError | OSError):
            raise
        message = _message(error) if isinstance(error, TimixError) else f"error: {error}"
        print(f"{command}: {f'rank {rank}: ' * (rank > 0)}{message}", file=sys.stderr)
        sys.exit(getattr(error, "status", 2))


def _message(error: TimixError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return "\n  - ".join([f"the configuration has {len(error.problems)} problems", *error.problems])
    return f"error: {error}"
