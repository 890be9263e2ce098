"""Measure how long parts of a step take on the device that does the work."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds between ``start`` and ``stop``, while :attr:`on` is True.

    On a GPU it records events in the stream and never waits for them; their time is added once the GPU has passed them. On other devices
    it uses the host's clock.
    """

    def __init__(self) -> None:
        self.on = False
        self._counted_s = 0.0
        self._begun: float | torch.cuda.Event | None = None
        self._passed: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def start(self, device: torch.device) -> None:
        """Start measuring, if :attr:`on` is True."""
        if self.on:
            self._begun = _mark() if device.type == "cuda" else time.perf_counter()

    def stop(self) -> None:
        """Add the time since ``start``."""
        if isinstance(self._begun, float):
            self._counted_s += time.perf_counter() - self._begun
        elif self._begun is not None:
            self._passed.append((self._begun, _mark()))
        self._begun = None

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Measure the time of a block."""
        self.start(device)
        yield
        self.stop()

    def take(self) -> float:
        """Seconds measured since the last call. Work that the GPU has not finished yet is included in a later call."""
        while self._passed and self._passed[0][1].query():
            begun, ended = self._passed.popleft()
            self._counted_s += begun.elapsed_time(ended) / 1000
        taken, self._counted_s = self._counted_s, 0.0
        return taken


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
