"""Fetching from several sources at the same time, and ahead of need."""

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from timix_pl.data.shards.tar import Tar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CONNECTIONS = 16
_EXIT_WAIT_S = 2.0

exiting = threading.Event()
"""Set when the process ends; downloads then give up."""


class Prefetcher:
    """Fetches tars in its own thread. When it is asked for other tars, it drops those that it has not begun."""

    def __init__(self) -> None:
        self._asked: tuple[Tar, ...] = ()
        self._waiting: deque[Tar] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def fetch(self, tars: Sequence[Tar]) -> None:
        """Start to fetch these in this order, only as many as the cache can hold together."""
        if tuple(tars) == self._asked:
            return
        self._asked = tuple(tars)
        room = 1.0
        with self._lock:
            self._waiting.clear()
            for tar in tars:
                room -= tar.cache_share or 0.0
                if room < 0:
                    break
                self._waiting.append(tar)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="shard-prefetch", daemon=True)
                self._thread.start()
                _threads.add(self._thread)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or exiting.is_set():
                    self._thread = None
                    return
                tar = self._waiting.popleft()
            tar.prefetch()

    def __reduce__(self) -> tuple[Any, ...]:
        return Prefetcher, ()


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results for all items, in their order. The first error ends it."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(function, items))


_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _end_threads() -> None:
    """Without this, a thread that comes back from the network while the interpreter ends would crash the process."""
    exiting.set()
    until = time.monotonic() + _EXIT_WAIT_S
    for thread in list(_threads):
        thread.join(max(0.0, until - time.monotonic()))


atexit.register(_end_threads)
