"""Stop a run on a signal without losing a step."""

import logging
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.pytorch import Trainer

from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

log = logging.getLogger(__name__)


class StopSignals:
    """Catches SIGTERM, SIGUSR1 (SLURM's usual warning) and Ctrl-C inside its context, and stores the first one in ``heard``.

    The training module informs all ranks, which save a checkpoint and stop together. A second Ctrl-C raises ``KeyboardInterrupt`` at once.
    Outside training, a run with one process ends at once, because it has nothing to save.

    Args:
        alone: the run has only one process.
    """

    def __init__(self, *, alone: bool):
        self.alone, self.training = alone, False
        self.heard = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only the main thread can set signal handlers
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(
                number, signal.SIG_IGN if self.heard else handler
            )  # a launcher may send signals again to ranks that are slower than others

    def _hear(self, number: int, frame: FrameType | None) -> None:
        before, self.heard = self.heard, self.heard or number
        if number == signal.SIGINT and (before == signal.SIGINT or not self.training):
            raise KeyboardInterrupt
        if not self.training and self.alone:
            sys.exit(STATUS_OF_A_STOPPED_RUN)
        if not before:
            log.warning("%s: the run saves a checkpoint within its next steps and stops", signal.Signals(number).name)


def silence_lightning(trainer: Trainer) -> None:
    """Disable Lightning's own handler of SIGTERM, which exchanges messages between ranks and makes each step wait for the device."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
