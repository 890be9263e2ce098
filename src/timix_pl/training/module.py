"""The pre-training LightningModule: one training step, and what it logs."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor

from timix_pl.core.distributed import sum_over_ranks
from timix_pl.core.errors import NonFiniteError, RunError
from timix_pl.core.randomness import seed_of
from timix_pl.core.types import Batch, LossOutput, RegionBatch
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.mixgen import MixGen
from timix_pl.mixing.step import Mixer, MixStep
from timix_pl.models.dual_encoder import DualEncoder, Encoded
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.optim.groups import parameter_groups
from timix_pl.optim.schedule import learning_rate
from timix_pl.training.accumulation import Chunk, accumulate, split
from timix_pl.training.objective import Objective
from timix_pl.training.sharding import ShardedStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimSettings:
    """AdamW and its schedule; fractions are of the samples planned at the run's first start."""

    lr: float = 5e-4
    weight_decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    schedule: str = "cosine"
    warmup_frac: float = 0.05
    cooldown_frac: float = 0.2
    min_lr: float = 0.0
    clip_grad_norm: float | None = 1.0


class MixNow(NamedTuple):
    """The mixing callback's word on the coming step."""

    mixer: Mixer
    compute: str
    ratio: float
    gamma: float
    group_size: int


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


class PretrainModule(LightningModule):
    """Contrastive pre-training with text-aware mixing.

    The mixing callback sets :attr:`mixing` before each step. One step is one forward call of the model, one backward, one optimizer step.
    A step whose loss or gradient is not finite on any rank changes no weight; the host learns of it one step later, when the device has
    the next gradients to work on, so that the device never waits for the host. By the same exchange all ranks learn that one of them was
    told to stop (:attr:`all_stop`).

    Args:
        model: the dual encoder.
        objective: losses and their weights.
        optim: optimizer and schedule.
        global_batch_size: pairs per step over all ranks.
        planned_samples: samples of the whole run; kept in the checkpoint, so that extending a run bends no schedule.
        seed: the run's seed.
        non_finite: ``stop`` raises ``NonFiniteError``; ``skip`` counts the step and goes on.
        log_every_n_steps: a row of metrics every n steps, and for the first and the last.
        micro_batch_size: pairs that a rank takes through the model at once; None: its whole batch. The gradients are the same.
        told_to_stop: asked in each step; where it answers yes on any rank, :attr:`all_stop` is true on all a step later.
    """

    def __init__(
        self,
        model: DualEncoder,
        objective: Objective,
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
        self.model, self.objective, self.optim = model, objective, optim
        self.global_batch_size, self.planned_samples, self.seed, self.non_finite = global_batch_size, planned_samples, seed, non_finite
        self.log_every_n_steps, self.micro_batch_size = log_every_n_steps, micro_batch_size
        self.mixing: MixNow | None = None
        self.num_skipped_steps = 0
        self.logged_loss = math.nan
        self.told_to_stop, self.all_stop = told_to_stop, False
        self.idle_since_s = time.perf_counter()
        self._row: dict[str, Any] = {}
        self._newest_region_values: dict[str, Tensor] = {}
        self._last: _Finished | None = None

    @property
    def consumed(self) -> int:
        """Pairs of finished steps, over all ranks."""
        return self.global_step * self.global_batch_size

    def training_step(self, batch: tuple[Batch, RegionBatch | None], batch_idx: int) -> None:
        """Encode, mix, compare, learn: one optimizer step."""
        pairs, regions = batch
        lr = self._set_learning_rate()
        encoded, output = self._gradients(pairs, regions)
        self.check_finite()
        grad_norm = self._optimizer_step(output, pairs)
        if regions is not None:
            self._newest_region_values = self._region_values(encoded, output, regions)
        if self.logs_now():
            self._log_step(encoded, output, grad_norm, lr)

    def _gradients(self, pairs: Batch, regions: RegionBatch | None) -> tuple[Encoded, LossOutput]:
        """Forward and backward of this rank's batch, whole or in chunks of ``micro_batch_size``."""
        gamma = self.mixing.gamma if self.mixing else 0.0
        parts = split(pairs, self.micro_batch_size or len(pairs.images))
        chunks = [Chunk(part, self.mix_step(part), regions if part is parts[-1] else None) for part in parts]
        if len(chunks) > 1:
            return accumulate(chunks, self._encode, self.objective, gamma, self._backward)
        encoded = self._encode(chunks[0])
        output = self.objective(encoded, regions, first=pairs.first, gamma=gamma)
        self._backward(output.loss, encoded, last=True)
        return encoded, output

    def _encode(self, chunk: Chunk) -> Encoded:
        """Dropout draws from (seed, step, position): the same in both passes of an accumulation, and after a resume."""
        pairs, mix, regions = chunk
        torch.manual_seed(seed_of("dropout", self.seed, self.global_step, pairs.first))
        return self.model(pairs.images, pairs.tokens, mix=mix, regions=regions, dropout=self.dropout(pairs))

    def _backward(self, loss: Tensor, encoded: Encoded, last: bool) -> None:
        """Gradients are exchanged once, after the last chunk of a step."""
        if last:
            self.manual_backward(loss + self._untouched_parameters(encoded))
            for parameter in self.model.parameters():
                if parameter.grad is None and parameter.requires_grad:  # of a sharded head: the optimizer shall treat it as any other
                    parameter.grad = torch.zeros_like(parameter)
        else:
            with getattr(self.trainer.strategy, "block_backward_sync", nullcontext)():
                self.manual_backward(loss)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Runs after all callbacks: the step's row is complete, and from here on the loop waits for data."""
        self._write_row()
        self.idle_since_s = time.perf_counter()

    def mix_step(self, pairs: Batch) -> MixStep | None:
        """This step's mixing, or None where nothing is mixed."""
        if self.mixing is None:
            return None
        step = self.global_step
        mixer, compute, ratio, _, group_size = self.mixing
        rows, partners = mixed_rows(len(pairs.images), group_size, ratio, seed=self.seed, step=step, first=pairs.first)
        if not len(rows):
            return None
        joined = None
        if mixer.joins_captions:
            joined = self.model.tokenizer(MixGen.join(pairs.captions, rows, partners)).to(self.device, non_blocking=True)
        return MixStep(mixer, compute, rows, partners, self.seed, step, pairs.first, joined)

    def configure_model(self) -> None:
        """Shard the model, where the strategy does."""
        if isinstance(self.trainer.strategy, ShardedStrategy):
            self.trainer.strategy.shard(self.model)

    def dropout(self, pairs: Batch) -> PatchDropout | None:
        """This step's patch dropout, or None where nothing is dropped."""
        share = self.model.patch_dropout
        return PatchDropout(share, self.seed, self.global_step, pairs.first) if share else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; ``fused`` because it can mask an update on the device."""
        return torch.optim.AdamW(
            parameter_groups(self.model, self.optim.weight_decay),
            lr=self.optim.lr,
            betas=(self.optim.beta1, self.optim.beta2),
            eps=self.optim.eps,
            fused=True,
        )

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
                "Lower optim.lr, set optim.clip_grad_norm, or let such steps pass with trainer.non_finite=skip"
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
            raise RunError("resume: this checkpoint was not written by timix-train; give model.pretrained a weights file instead")
        self.planned_samples = checkpoint["timix"]["planned_samples"]
        if self.trainer.max_steps * self.global_batch_size > self.planned_samples:
            log.warning(
                "the run was planned for %d steps; after these the learning rate stays at the end of its schedule, and nothing is mixed",
                self.planned_samples // self.global_batch_size,
            )
        self.num_skipped_steps = checkpoint["timix"]["num_skipped_steps"]

    def _optimizer(self) -> Any:
        return self.optimizers()

    def _set_learning_rate(self) -> float:
        optim, total = self.optim, self.planned_samples
        lr = learning_rate(
            self.consumed + self.global_batch_size,
            peak=optim.lr,
            warmup=round(optim.warmup_frac * total),
            total=total,
            kind=optim.schedule,
            minimum=optim.min_lr,
            cooldown=round(optim.cooldown_frac * total),
        )
        for group in self._optimizer().param_groups:
            group["lr"] = lr
        return lr

    def _optimizer_step(self, output: LossOutput, pairs: Batch) -> Float[Tensor, ""]:
        """Clip, and update the weights if the loss and the gradient are finite on all ranks."""
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_grad_norm or math.inf)
        if isinstance(grad_norm, DTensor):
            grad_norm = grad_norm.full_tensor().to(self.device)
        bad = (~torch.isfinite(output.loss.detach()) | ~torch.isfinite(grad_norm)).float().reshape(())
        num_bad_and_told = sum_over_ranks(torch.stack((bad, torch.full_like(bad, float(self.told_to_stop())))))
        optimizer = self._optimizer()
        optimizer.optimizer.found_inf = num_bad_and_told[0].clamp(max=1)
        optimizer.step()
        optimizer.zero_grad()
        terms = {name: value.detach() for name, value in output.terms.items()}
        on_host, there = num_bad_and_told.to("cpu", non_blocking=True), None
        if num_bad_and_told.is_cuda:
            there = torch.cuda.Event()
            there.record()
        self._last = _Finished(on_host, there, self.global_step, terms, grad_norm, pairs.keys)
        return grad_norm

    def _untouched_parameters(self, encoded: Encoded) -> Tensor | float:
        """Zero times the head's parameters where no region batch touched them, so that DDP sees one graph in every step."""
        if self.model.pta is None or encoded.region_logits is not None:
            return 0.0
        return 0.0 * sum(parameter.sum() for parameter in self.model.pta.parameters() if not isinstance(parameter, DTensor))

    @staticmethod
    @torch.no_grad()
    def _region_values(encoded: Encoded, output: LossOutput, regions: RegionBatch) -> dict[str, Tensor]:
        """Kept on the device until a step is logged, which need not be one with a region batch."""
        assert encoded.region_logits is not None
        said, true = encoded.region_logits > 0, regions.patch_labels > 0
        hits = (said & true).sum()
        return {
            "train/loss/patch_text": output.terms["patch_text"].detach(),
            "train/pta/precision": hits / said.sum().clamp(min=1),
            "train/pta/recall": hits / true.sum().clamp(min=1),
        }

    @torch.no_grad()
    def _log_step(self, encoded: Encoded, output: LossOutput, grad_norm: Tensor, lr: float) -> None:
        values: dict[str, Any] = self._newest_region_values | {f"train/loss/{name}": value for name, value in output.terms.items()}
        values |= {
            "train/loss/total": output.loss,
            "train/grad_norm": grad_norm,
            "train/logit_scale": encoded.logit_scale,
            "train/lr": lr,
            "train/num_skipped_steps": float(self.num_skipped_steps),
        }
        if encoded.plan is not None and self.mixing is not None:
            values |= {
                "train/mixing/lam": encoded.plan.lam.float().mean(),
                "train/mixing/gamma": self.mixing.gamma,
                "train/mixing/num_mixed": float(len(encoded.plan.rows) * self.trainer.world_size),
            }
            if encoded.plan.windows is not None:
                values["train/mixing/side"] = float(encoded.plan.windows.side)
        self.note(values)

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
