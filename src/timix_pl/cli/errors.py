"""How a command ends: a clear message and an exit status, no stack trace for what a user can mend."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from timix_pl.core.errors import ConfigError, TimixError


@contextmanager
def clean_exit(command: str) -> Iterator[None]:
    """End with status 2 and the message on a ``TimixError``, with status 130 on Ctrl-C. TIMIX_TRACEBACK=1 shows the stack trace."""
    try:
        yield
    except TimixError as error:
        if os.environ.get("TIMIX_TRACEBACK") == "1":
            raise
        print(f"{command}: {_message(error)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if os.environ.get("TIMIX_TRACEBACK") == "1":
            raise
        print(f"{command}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted", file=sys.stderr)
        sys.exit(130)


def _message(error: TimixError) -> str:
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return "\n  - ".join([f"the configuration has {len(error.problems)} problems", *error.problems])
    return f"error: {error}"
