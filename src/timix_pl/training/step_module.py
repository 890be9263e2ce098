"""What every training module of timix-pl has: the optimizer and its schedule, masked updates, rows of metrics, checkpoint state."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor

from timix_pl.core.distributed import sum_over_ranks
from timix_pl.core.errors import NonFiniteError, RunError
from timix_pl.optim.average import WeightAverage
from timix_pl.optim.groups import hidden_matrices, lr_scales, parameter_groups
from timix_pl.optim.optimizer import OptimizerChoice
from timix_pl.optim.optimizers.adamw import AdamW
from timix_pl.optim.schedule import Schedule
from timix_pl.optim.schedules.cosine import Cosine
from timix_pl.training.sharding import ShardedStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """The optimizer and the learning rate.

    Args:
        optimizer: what updates the weights.
        schedule: what the learning rate does after the warm-up.
        lr: peak learning rate.
        weight_decay: of matrices; see :func:`timix_pl.optim.groups.parameter_groups`.
        warmup_frac: share of the samples planned at the run's first start over which the learning rate rises.
        clip_grad_norm: largest norm of the gradient; None: no clipping.
        image_lr_scale, text_lr_scale, head_lr_scale: learning rates of the towers and of all heads, as shares of ``lr``.
        layer_decay: of learning rates; see :func:`timix_pl.optim.groups.lr_scales`.
        ema: decay of the weights' moving average; None: there is none.
    """

    optimizer: OptimizerChoice = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cosine)
    lr: float = 5e-4
    weight_decay: float = 0.2
    warmup_frac: float = 0.05
    clip_grad_norm: float | None = 1.0
    image_lr_scale: float = 1.0
    text_lr_scale: float = 1.0
    head_lr_scale: float = 1.0
    layer_decay: float = 1.0
    ema: float | None = None

    def parameter_groups(self, model: torch.nn.Module, parts: Mapping[str, torch.nn.Module]) -> list[dict[str, Any]]:
        """What the optimizer is given.

        Args:
            parts: what the model is made of, by name.
        Raises:
            ModelError: a tower has no blocks that could be counted, and they matter.
        """
        scales = lr_scales(parts, image=self.image_lr_scale, text=self.text_lr_scale, head=self.head_lr_scale, layer_decay=self.layer_decay)
        hidden = hidden_matrices(parts, self.optimizer.choice) if self.optimizer.for_hidden_matrices else ()
        return parameter_groups(model, self.weight_decay, lr_scales=scales, hidden=hidden)

    def fine_tuning_groups(self, head: torch.nn.Module, encoder: Any, *, towers_lr_scale: float) -> list[dict[str, Any]]:
        """What the optimizer is given of a model that learns a task: the head's groups, then those of the towers that are tuned.

        Args:
            towers_lr_scale: the towers' learning rate, as a share of the head's.
        """
        groups = []
        for part, parts, scale in ((head, {"head": head}, 1.0), (encoder, encoder.parts(), towers_lr_scale)):
            groups += [group | {"lr_scale": scale * group.get("lr_scale", 1.0)} for group in self.parameter_groups(part, parts)]
        return groups


class _Finished(NamedTuple):
    """What the host looks at one step later: on how many ranks the step was not finite and how many were told to stop; and which it was.

    The two numbers are on their way to the host; ``there``: the event after which they are there, where they come from a GPU.
    """

    num_bad_and_told: Float[Tensor, " 2"]
    there: torch.cuda.Event | None
    step: int
    terms: dict[str, Tensor]
    grad_norm: Tensor
    keys: list[str]


class StepModule(LightningModule):
    """One optimizer step per batch of the loader; what is trained, and how its gradients come about, is the subclass's.

    A step whose loss or gradient is not finite on any rank changes no weight; the host learns of it one step later, when the device has
    the next gradients to work on, so that the device never waits for the host. By the same exchange all ranks learn that one of them was
    told to stop (:attr:`all_stop`).

    A subclass's ``training_step`` calls, in this order: :meth:`set_learning_rate`, its own forward and backward, :meth:`check_finite`,
    :meth:`update`, and where :meth:`logs_now` says so :meth:`note`.

    With ``optim.ema``, :attr:`average` is the moving average of the weights.

    Args:
        model: what is trained; it offers ``parts()``, and ``blocks()`` to be sharded.
        optim: optimizer and schedule.
        global_batch_size: images per step over all ranks.
        planned_samples: samples of the whole run; kept in the checkpoint, so that extending a run bends no schedule.
        seed: the run's seed.
        non_finite: ``stop`` raises ``NonFiniteError``; ``skip`` counts the step and goes on.
        log_every_n_steps: a row of metrics every n steps, and for the first and the last.
        micro_batch_size: images that a rank takes through the model at once; None: its whole batch. The gradients are the same.
        told_to_stop: asked in each step; where it answers yes on any rank, :attr:`all_stop` is true on all a step later.
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
        """Samples of finished steps, over all ranks."""
        return self.global_step * self.global_batch_size

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Runs after all callbacks: the step's row is complete, and from here on the loop waits for data."""
        self._write_row()
        self.idle_since_s = time.perf_counter()

    def configure_model(self) -> None:
        """Shard the model, where the strategy does. Its average is made of what is there then."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self.trainer.strategy.shard(self.model)
        if self.optim.ema is not None and self.average is None:
            self.average = WeightAverage(self.model, self.optim.ema)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer for all parts of the model: Lightning counts the steps of each one, and the data order depends on the count."""
        return self.optim.optimizer.start(self.parameter_groups(), self.optim.lr)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer is given; ``lr_scale`` of a group, where it has one, multiplies the learning rate."""
        return self.optim.parameter_groups(self.model, self.model.parts())

    def average_in_place(self) -> AbstractContextManager[None]:
        """Inside, the model has the moving average of its weights."""
        assert self.average is not None, "no moving average is kept"
        return self.average.in_place(self.model)

    def backward_chunk(self, loss: Tensor, *, last: bool) -> None:
        """Backward of a part of a step's loss. Gradients are exchanged once, after the last part."""
        if last:
            self.manual_backward(loss)
            for parameter in self.model.parameters():
                if parameter.grad is None and parameter.requires_grad:  # of a sharded head: the optimizer shall treat it as any other
                    parameter.grad = torch.zeros_like(parameter)
        else:
            with getattr(self.trainer.strategy, "block_backward_sync", nullcontext)():
                self.manual_backward(loss)

    def check_finite(self) -> None:
        """Look at the last step's flags.

        Raises:
            NonFiniteError: it was not finite and ``non_finite`` is ``stop``. The weights were not touched.
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
        """The last step is looked at too."""
        self.check_finite()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the schedules need to go on unbent. A checkpoint is only written after a step that was looked at and logged."""
        self._write_row()
        self.check_finite()
        checkpoint["timix"] = {"planned_samples": self.planned_samples, "num_skipped_steps": self.num_skipped_steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the samples planned at the first start.

        Raises:
            RunError: the checkpoint is not one of timix-pl.
        """
        if "timix" not in checkpoint:
            raise RunError("`ckpt_path`: this is not a checkpoint of a timix-pl run; give `pretrained` a weights file instead")
        self.planned_samples = checkpoint["timix"]["planned_samples"]
        if self.trainer.max_steps * self.global_batch_size > self.planned_samples:
            log.warning(
                "the run was planned for %d steps; after these the learning rate stays at the end of its schedule, and nothing is mixed",
                self.planned_samples // self.global_batch_size,
            )
        self.num_skipped_steps = checkpoint["timix"]["num_skipped_steps"]

    def _optimizer(self) -> Any:
        return self.optimizers()

    def set_learning_rate(self) -> float:
        """Of the coming step."""
        optim, total = self.optim, self.planned_samples
        warmup = round(optim.warmup_frac * total)
        lr = optim.schedule(self.consumed + self.global_batch_size, peak=optim.lr, warmup=warmup, total=total)
        for group in self._optimizer().param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        return lr

    def update(self, loss: Tensor, terms: Mapping[str, Tensor], keys: list[str]) -> Float[Tensor, ""]:
        """Clip, and update the weights if the loss and the gradient are finite on all ranks.

        Args:
            loss: of this rank; ``terms``: its parts, and ``keys``: this rank's samples, for the message about a step that is not finite.
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
        elif num_bad_and_told[0] > 0:  # waits for the device
            optimizer.zero_grad()  # optimizers leave parameters without gradient alone, and the step still counts
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
        """Whether the step that just finished is one to log."""
        return self.global_step % self.log_every_n_steps == 0 or self.global_step in (1, self.trainer.max_steps)

    def note(self, values: dict[str, Any]) -> None:
        """Add scalars to this step's row in all loggers: their mean over ranks. Called on all ranks or none."""
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
