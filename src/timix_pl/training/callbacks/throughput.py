"""Measure throughput, MFU, and the shares of the time spent on parts of a step."""

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.core.distributed import EXCHANGES, max_over_ranks, world_size
from timix_pl.core.timing import Stopwatch
from timix_pl.core.types import Batch
from timix_pl.mixing.groups import num_mixed_rows
from timix_pl.training.module import MixNow, TrainModule
from timix_pl.training.step_cost import flops_of
from timix_pl.training.step_module import StepModule


class ThroughputCallback(Callback):
    """Logs throughput, shares of the time, and memory since the last log, without evaluations and checkpoints.

    - ``train/samples_per_s`` over all ranks, and ``train/samples_per_s_per_device``.
    - ``train/mfu``, if the peak is known.
    - ``train/data_wait_frac`` and ``train/optimizer_frac``.
    - ``train/collectives_frac``, with several ranks: exchanges of features, counts and flags. Those of gradients are not included, because
      DDP and FSDP overlap them with the backward pass.
    - ``train/peak_memory_gb``.

    The measurement never waits for the device.

    Args:
        peak_flops: peak FLOP/s of one device; None: unknown, so MFU is not logged.
        flops: FLOPs of each part of a step, for MFU; see :func:`timix_pl.training.step_cost.count_flops`.
    """

    def __init__(self, peak_flops: float | None = None, flops: Mapping[str, float] | None = None):
        self.flops, self.peak_flops = flops, peak_flops
        self._optimizer = Stopwatch()
        self._started_s = 0.0
        self._begin_count()

    def _begin_count(self) -> None:
        self._stepping_s = self._waiting_s = self._optimizing_s = self._exchanging_s = self._num_flops = 0.0
        self._num_steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start measuring the wait for the first batch."""
        assert isinstance(pl_module, StepModule)
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(lambda *_: self._optimizer.start(pl_module.device))
            optimizer.register_step_post_hook(lambda *_: self._optimizer.stop())
        pl_module.idle_since_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop measuring the wait for data."""
        assert isinstance(pl_module, StepModule)
        self._started_s = time.perf_counter()
        self._waiting_s += self._started_s - pl_module.idle_since_s
        EXCHANGES.on = self._optimizer.on = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count the step, and log in the steps that are due."""
        assert isinstance(pl_module, TrainModule)
        EXCHANGES.on = self._optimizer.on = False
        self._stepping_s += time.perf_counter() - self._started_s
        self._optimizing_s += self._optimizer.take()
        self._exchanging_s += EXCHANGES.take()
        if self.flops is not None:
            self._num_flops += flops_of(self.flops, step_counts(batch, pl_module.mixing))
        self._num_steps += 1
        if pl_module.logs_now():
            pl_module.note(self._values(pl_module))
            self._begin_count()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop measuring collectives, which are not timed outside training."""
        EXCHANGES.on = False

    def _values(self, module: StepModule) -> dict[str, Any]:
        total_s = self._stepping_s + self._waiting_s
        samples_per_s = self._num_steps * module.global_batch_size / total_s
        values = {
            "train/samples_per_s": samples_per_s,
            "train/samples_per_s_per_device": samples_per_s / world_size(),
            "train/data_wait_frac": self._waiting_s / total_s,
            "train/optimizer_frac": self._optimizing_s / total_s,
            "train/peak_memory_gb": max_over_ranks(torch.tensor(peak_memory_bytes(module.device) / 1e9, device=module.device)),
        }
        if world_size() > 1:
            values["train/collectives_frac"] = self._exchanging_s / total_s
        if self.peak_flops is not None and self.flops is not None:
            values["train/mfu"] = self._num_flops / total_s / self.peak_flops
        return values


def step_counts(batch: Batch, mixing: MixNow | None) -> dict[str, int]:
    """The count of each part that this rank computes in a step."""
    if mixing is None:
        return batch.counts()
    num_groups = len(batch.images) // mixing.group_size
    return batch.counts() | {"mixed_image": num_groups * num_mixed_rows(mixing.group_size, mixing.ratio)}


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of tensors on a GPU; on a CPU of this process (resident), without loader processes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
