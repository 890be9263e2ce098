"""Samples per second, and how much of the time went into waiting for data."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.training.module import PretrainModule


class ThroughputCallback(Callback):
    """Logs ``train/samples_per_s`` (over all ranks) and ``train/data_wait_frac`` since the last log, evaluations left out."""

    def __init__(self) -> None:
        self._ended = self._stepping_s = self._waiting_s = 0.0
        self._steps = 0
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is here: the wait is over."""
        self._started = time.perf_counter()
        self._waiting_s += self._started - self._ended

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step; log now and then."""
        assert isinstance(pl_module, PretrainModule)
        self._ended = time.perf_counter()
        self._stepping_s += self._ended - self._started
        self._steps += 1
        if pl_module.logs_now():
            total_s = self._stepping_s + self._waiting_s
            samples = self._steps * pl_module.global_batch_size
            pl_module.record({"train/samples_per_s": samples / total_s, "train/data_wait_frac": self._waiting_s / total_s})
            self._stepping_s = self._waiting_s = 0.0
            self._steps = 0

    def restart_clock(self) -> None:
        """Leave out what was done since the last step (an evaluation, a checkpoint)."""
        self._ended = time.perf_counter()
