"""Base class of training modules: optimizer and schedule, updates that skip non-finite steps, rows of metrics, checkpoint state."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor

from timix_pl.core.distributed import sum_over_ranks
from timix_pl.core.errors import NonFiniteError, RunError
from timix_pl.optim.average import WeightAverage
from timix_pl.optim.settings import OptimSettings
from timix_pl.training.sharding import ShardedStrategy

log = logging.getLogger(__name__)


class _Finished(NamedTuple):
    """Flags of a step that the host reads one step later: the numbers of ranks with a non-finite step, and of ranks that must stop.

    Both numbers are copied to the host asynchronously. ``there``: the CUDA event after which they have arrived; None on a CPU.
    """

    num_bad_and_told: Float[Tensor, " 2"]
    there: torch.cuda.Event | None
    step: int
    terms: dict[str, Tensor]
    grad_norm: Tensor
    keys: list[str]


class StepModule(LightningModule):
    """One optimizer step per batch of the loader. A subclass computes the gradients.

    A step with a non-finite loss or gradient on any rank changes no weight. The host reads this flag one step later, when the device
    already computes the next gradients, so that the device never waits for the host. The same exchange tells all ranks that one of them
    received a stop signal (:attr:`all_stop`).

    A subclass's ``training_step`` calls, in this order: :meth:`set_learning_rate`, its own forward and backward pass, :meth:`check_finite`,
    :meth:`update`, and if :meth:`logs_now` is true :meth:`note`.

    With ``optim.ema``, :attr:`average` is the moving average of the weights.

    Args:
        model: the model to train; it has ``parts()``, and to be sharded ``blocks()``.
        optim: optimizer and schedule.
        global_batch_size: images per step over all ranks.
        planned_samples: samples of the whole run; stored in the checkpoint, so that extending a run does not change its schedules.
        seed: the run's seed.
        non_finite: ``stop``: raise ``NonFiniteError``; ``skip``: count the step and continue.
        log_every_n_steps: steps between rows of metrics; the first and the last step have a row too.
        micro_batch_size: images per forward pass and rank; None: the whole batch. The gradients are the same.
        told_to_stop: called in each step. If it returns True on any rank, :attr:`all_stop` is True on all ranks one step later.
    """

    model: Any

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimSettings,
        *,
        global_batch_size: int,
        planned_samples: int,
        seed: int,
        non_finite: str = "stop",
        log_every_n_steps: int = 10,
        micro_batch_size: int | None = None,
        told_to_stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.model, self.optim = model, optim
        self.average: WeightAverage | None = None
        self.global_batch_size, self.planned_samples, self.seed, self.non_finite = global_batch_size, planned_samples, seed, non_finite
        self.log_every_n_steps, self.micro_batch_size = log_every_n_steps, micro_batch_size
        self.num_skipped_steps = 0
        self.logged_loss: float | None = None
        self.told_to_stop, self.all_stop = told_to_stop, False
        self.idle_since_s = time.perf_counter()
        self._row: dict[str, Any] = {}
        self._last: _Finished | None = None

    @property
    def consumed(self) -> int:
        """Number of samples of finished steps, over all ranks."""
        return self.global_step * self.global_batch_size

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write the step's row of metrics, which is complete because this hook runs after all callbacks."""
        self._write_row()
        self.idle_since_s = time.perf_counter()

    def configure_model(self) -> None:
        """Shard the model, if the strategy does, then make the average of the (sharded) weights."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self.trainer.strategy.shard(self.model)
        if self.optim.ema is not None and self.average is None:
            self.average = WeightAverage(self.model, self.optim.ema)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer for all parts of the model. Lightning counts the steps of every optimizer, and the data order needs one count."""
        return self.optim.optimizer.start(self.parameter_groups(), self.optim.lr)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups. A group's ``lr_scale``, if present, multiplies the learning rate."""
        return self.optim.parameter_groups(self.model, self.model.parts())

    def average_in_place(self) -> AbstractContextManager[None]:
        """Inside this context, the model has the moving average of its weights."""
        assert self.average is not None, "no moving average is kept"
        return self.average.in_place(self.model)

    def backward_chunk(self, loss: Tensor, *, last: bool) -> None:
        """Backward pass of a part of a step's loss. Ranks exchange gradients once, after the last part."""
        if last:
            self.manual_backward(loss)
            for parameter in self.model.parameters():
                # Of an unused sharded head. With a gradient of zero, the optimizer treats it as it does with DDP.
                if parameter.grad is None and parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        else:
            with getattr(self.trainer.strategy, "block_backward_sync", nullcontext)():
                self.manual_backward(loss)

    def check_finite(self) -> None:
        """Read the flags of the last step.

        Raises:
            NonFiniteError: the step was not finite and ``non_finite`` is ``stop``. It did not change the weights.
        """
        last, self._last = self._last, None
        if last is None:
            return
        if last.there is not None:
            last.there.synchronize()
        num_bad, num_told = last.num_bad_and_told.tolist()
        self.all_stop |= num_told > 0
        if not num_bad:
            return
        self.num_skipped_steps += 1
        if self.non_finite == "stop":
            terms = ", ".join(f"{name}={float(value):g}" for name, value in last.terms.items())
            raise NonFiniteError(
                f"step {last.step}: the loss or the gradient is not finite ({terms}, "
                f"grad_norm={float(last.grad_norm):g}); the weights were not touched. "
                f"Samples of this rank: {', '.join(last.keys[:8])}{', ...' if len(last.keys) > 8 else ''}. "
                "Lower `lr`, set `clip_grad_norm`, or let such steps pass with `non_finite=skip`"
            )

    def on_train_end(self) -> None:
        """Read the flags of the last step of the run."""
        self.check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what the schedules need to continue unchanged. The step's flags have been read and its row written before."""
        self._write_row()
        self.check_finite()
        checkpoint["timix"] = {"planned_samples": self.planned_samples, "num_skipped_steps": self.num_skipped_steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of samples that was planned at the first start.

        Raises:
            RunError: timix-pl did not write the checkpoint.
        """
        if "timix" not in checkpoint:
            raise RunError("`ckpt_path`: this is not a checkpoint of a timix-pl run; give `pretrained` a weights file instead")
        self.planned_samples = checkpoint["timix"]["planned_samples"]
        if self.trainer.max_steps * self.global_batch_size > self.planned_samples:
            log.warning(
                "the run was planned for %d steps; after them the learning rate keeps its last value, and images are not mixed",
                self.planned_samples // self.global_batch_size,
            )
        self.num_skipped_steps = checkpoint["timix"]["num_skipped_steps"]

    def _optimizer(self) -> Any:
        return self.optimizers()

    def set_learning_rate(self) -> float:
        """Set and return the learning rate of the next step."""
        optim, total = self.optim, self.planned_samples
        warmup = round(optim.warmup_frac * total)
        lr = optim.schedule(self.consumed + self.global_batch_size, peak=optim.lr, warmup=warmup, total=total)
        for group in self._optimizer().param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        return lr

    def update(self, loss: Tensor, terms: Mapping[str, Tensor], keys: list[str]) -> Float[Tensor, ""]:
        """Clip the gradient, and update the weights if the loss and the gradient are finite on all ranks.

        Args:
            loss: of this rank.
            terms, keys: the terms of the loss and this rank's samples, for the message about a non-finite step.
        Returns:
            The norm of the gradient.
        """
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_grad_norm or math.inf)
        if isinstance(grad_norm, DTensor):
            grad_norm = grad_norm.full_tensor().to(self.device)
        bad = (~torch.isfinite(loss.detach()) | ~torch.isfinite(grad_norm)).float().reshape(())
        num_bad_and_told = sum_over_ranks(torch.stack((bad, torch.full_like(bad, float(self.told_to_stop())))))
        optimizer = self._optimizer()
        if self.optim.optimizer.masks_updates:
            optimizer.optimizer.found_inf = num_bad_and_told[0].clamp(max=1)
        elif num_bad_and_told[0] > 0:  # this comparison waits for the device
            optimizer.zero_grad()  # optimizers do not change parameters without a gradient, but the step still counts
        optimizer.step()
        optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model, num_bad_and_told[0] == 0)
        on_host, there = num_bad_and_told.to("cpu", non_blocking=True), None
        if num_bad_and_told.is_cuda:
            there = torch.cuda.Event()
            there.record()
        detached = {name: value.detach() for name, value in terms.items()}
        self._last = _Finished(on_host, there, self.global_step, detached, grad_norm, keys)
        return grad_norm

    def logs_now(self) -> bool:
        """Whether the step that just finished is logged."""
        return self.global_step % self.log_every_n_steps == 0 or self.global_step in (1, self.trainer.max_steps)

    def note(self, values: dict[str, Any]) -> None:
        """Add the means over ranks of scalars to this step's row in all loggers. Call it on all ranks or none."""
        self._row |= values

    def _write_row(self) -> None:
        if not self._row:
            return
        row, self._row = self._row, {}
        means = sum_over_ranks(torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device).reshape(()) for v in row.values()]))
        if self.trainer.is_global_zero:
            metrics = dict(zip(row, (means / self.trainer.world_size).tolist(), strict=True))
            self.logged_loss = metrics.get("train/loss/total", self.logged_loss)
            for logger in self.trainer.loggers:
                logger.log_metrics({"consumed": self.consumed} | metrics, step=self.global_step)
