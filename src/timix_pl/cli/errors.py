"""How a command ends: a clear message and an exit status, no stack trace for what a user can mend."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from timix_pl.core.errors import ConfigError, TimixError
from timix_pl.core.launched import rank_at_start

RANK_0_TELLS_S = 5
"""How long another rank holds an error back. Where all have the same, rank 0 tells it, and the launcher ends the others."""


@contextmanager
def clean_exit(command: str) -> Iterator[None]:
    """End with status 2, or the error's own, and the message on a ``TimixError``; with status 130 on Ctrl-C.

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
