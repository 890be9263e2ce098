"""Run a function over many shards, in processes that always end together with the command."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from timix_pl.core.errors import DataError
from timix_pl.core.processes import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT_PER_JOB = 64


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Yield ``function`` of each item, in the order of the items, computed by ``jobs`` processes (1: by this process).

    Only a few items are taken ahead, so that memory does not grow with their number.

    Args:
        function: a function that can be pickled.
    Raises:
        DataError: a process was killed from outside.
    """
    if jobs == 1:
        yield from map(function, items)
        return
    rest = iter(items)
    with ProcessPoolExecutor(jobs, initializer=_start_worker) as pool:
        pending = deque(pool.submit(function, item) for item in islice(rest, _IN_FLIGHT_PER_JOB * jobs))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        except BrokenProcessPool:
            raise DataError(
                f"one of {jobs} processes was killed, perhaps for its memory; the same command goes on from here. Try a smaller --jobs."
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():  # safe, because unfinished files have temporary names
                process.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Let the parent handle Ctrl-C, and end together with the parent even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
