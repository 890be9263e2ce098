"""Samples per second, and how much of the time went into waiting for data."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.training.module import PretrainModule


class ThroughputCallback(Callback):
    """Logs ``train/samples_per_s`` (over all ranks) and ``train/data_wait_frac`` since the last log, evaluations left out."""

    def __init__(self) -> None:
        self._started_s = self._stepping_s = self._waiting_s = 0.0
        self._num_steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The loop begins to wait for its first batch."""
        assert isinstance(pl_module, PretrainModule)
        pl_module.idle_since_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is here: the wait is over."""
        assert isinstance(pl_module, PretrainModule)
        self._started_s = time.perf_counter()
        self._waiting_s += self._started_s - pl_module.idle_since_s

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step; log now and then."""
        assert isinstance(pl_module, PretrainModule)
        self._stepping_s += time.perf_counter() - self._started_s
        self._num_steps += 1
        if pl_module.logs_now():
            total_s = self._stepping_s + self._waiting_s
            samples = self._num_steps * pl_module.global_batch_size
            pl_module.note({"train/samples_per_s": samples / total_s, "train/data_wait_frac": self._waiting_s / total_s})
            self._stepping_s = self._waiting_s = 0.0
            self._num_steps = 0
