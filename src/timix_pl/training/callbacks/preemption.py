"""Signals that end a run without losing a step."""

import logging
import signal
import threading
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.training.module import PretrainModule

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

log = logging.getLogger(__name__)


class PreemptionCallback(Callback):
    """SIGTERM, SIGUSR1 (the usual warning of SLURM) and Ctrl-C let the step in hand end; then all ranks save a checkpoint and stop.

    It is enough that one rank hears it. Further signals change nothing, except that a second Ctrl-C stops at once, without a checkpoint.
    Lightning puts the handlers that were there before back when the run ends.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in place of Lightning, which would exchange a message between ranks inside the handler."""
        assert isinstance(pl_module, PretrainModule)
        module = pl_module

        def hear(number: int, frame: FrameType | None) -> None:
            if module.told_by_signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            if not module.told_by_signal:
                log.warning("%s: the run saves a checkpoint after this step and stops", signal.Signals(number).name)
                module.told_by_signal = number

        if threading.current_thread() is threading.main_thread():  # no other can listen
            for number in SIGNALS:
                signal.signal(number, hear)
