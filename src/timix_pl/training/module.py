"""The LightningModule: one training step of any task, and what it logs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from timix_pl.core.distributed import world_size
from timix_pl.core.memory import return_free_memory
from timix_pl.core.randomness import seed_of
from timix_pl.core.types import Batch, LossOutput, PairBatch
from timix_pl.mixing.groups import mixed_rows, num_mixed_rows
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.mosaic import draw_mosaics
from timix_pl.mixing.step import MixStep
from timix_pl.models.encoded import Encoded
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.optim.settings import OptimSettings
from timix_pl.training.accumulation import Chunk, accumulate, num_mixed_labels
from timix_pl.training.objective import Objective
from timix_pl.training.step_module import StepModule

_STEPS_PER_RETURN = 10


class MixNow(NamedTuple):
    """The mixing of the next step, as the mixing callback sets it."""

    mixer: Mixer
    compute: str
    ratio: float
    gamma: float
    group_size: int
    mosaic_frac: float = 0.0
    teaches: bool = False


class TrainModule(StepModule):
    """Trains a model for any task. The task is defined by the objective and the batches.

    The mixing callback sets :attr:`mixing` before each step. One step calls the model once for each chunk (twice if pairs are compared
    across chunks), then the optimizer once.

    Args:
        model: its forward pass returns :class:`timix_pl.models.encoded.Encoded`; it has ``heads()`` and ``parts()``.
        objective: the terms of the loss.
        optim: optimizer and schedule.
        groups: makes the parameter groups; None: :meth:`OptimSettings.parameter_groups`.
        facts: values besides the configuration that the model was built from, such as its answers; stored in the checkpoint.
        options: see :class:`timix_pl.training.step_module.StepModule`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optim: OptimSettings,
        *,
        groups: Callable[[Any, OptimSettings], list[dict[str, Any]]] | None = None,
        facts: dict[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(model, optim, **options)
        self.objective, self.groups, self.facts = objective, groups, facts or {}
        self.mixing: MixNow | None = None
        self._newest_of_items: dict[str, Tensor] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step: forward pass with mixing, loss, backward pass, update."""
        lr = self.set_learning_rate()
        encoded, output = self._gradients(batch)
        self.check_finite()
        grad_norm = self.update(output.loss, output.terms, batch.keys)
        if self.mixing is None and "train/loss/patch_text_mixed" in self._newest_of_items:
            self._newest_of_items = {}  # of mixed images, which the run no longer makes
        self._newest_of_items |= _values_of_head(encoded, output, batch)
        if batch.varies and self.device.type == "cpu" and self.global_step % _STEPS_PER_RETURN == 0:
            return_free_memory()
        if self.logs_now():
            self.note(self._values(batch, encoded, output, grad_norm, lr))

    def _gradients(self, batch: Batch) -> tuple[Encoded, LossOutput]:
        """Forward and backward pass of this rank's batch, whole or in chunks of ``micro_batch_size``."""
        parts = batch.split(self.micro_batch_size or len(batch.images))
        chunks = [Chunk(batch=part, mix=self.mix_step(part), dropout=self.dropout(part)) for part in parts]
        num_items = self.objective.count_items(batch, self.device, num_mixed_labels(chunks, math.prod(self.model.patch_grid)))
        gamma = self.mixing.gamma if self.mixing else 0.0
        return accumulate(chunks, self._encode, self.objective, num_items, gamma, self._backward)

    def _encode(self, chunk: Chunk) -> Encoded:
        """Run the model on a chunk. Dropout depends on (seed, step, position): it is the same in both passes of an accumulated step, and
        after resuming."""
        torch.manual_seed(seed_of("dropout", self.seed, self.global_step, chunk.batch.first))
        return chunk.encode(self.model)

    def _backward(self, loss: Tensor, encoded: Encoded, last: bool) -> None:
        self.backward_chunk(loss + self._untouched_parameters(encoded) if last else loss, last=last)

    def mix_step(self, batch: Batch) -> MixStep | None:
        """This step's mixing; None if nothing is mixed."""
        if self.mixing is None:
            return None
        assert isinstance(batch, PairBatch)
        mixer, compute, ratio, _, group_size, mosaic_frac, teaches = self.mixing
        place = {"seed": self.seed, "step": self.global_step, "first": batch.first}
        rows, partners = mixed_rows(len(batch.images), group_size, ratio, **place)
        if not len(rows):
            return None
        joined = None
        if mixer.joins_captions:
            joined = self.model.tokenizer(mixer.join(batch.captions, rows, partners)).to(self.device, non_blocking=True)
        chosen = MixRows(rows=rows, partners=partners, device=self.device, **place)
        mosaics = None
        if mosaic_frac:
            num_mixed = num_mixed_rows(group_size, ratio)
            mosaics = draw_mosaics(len(batch.images), mixer.grid, group_size=group_size, num_mixed=num_mixed, frac=mosaic_frac, **place)
        return MixStep(mixer=mixer, compute=compute, chosen=chosen, joined_tokens=joined, mosaics=mosaics, teaches=teaches)

    def dropout(self, batch: Batch) -> PatchDropout | None:
        """This step's patch dropout; None if nothing is dropped."""
        share = self.model.patch_dropout
        return PatchDropout(share, self.seed, self.global_step, batch.first) if share else None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups."""
        return self.groups(self.model, self.optim) if self.groups else super().parameter_groups()

    def _untouched_parameters(self, encoded: Encoded) -> Tensor | float:
        """Zero times the parameters of heads that the step did not use, so that DDP sees the same graph in every step."""
        untouched = [
            parameter.sum()
            for name, head in self.model.heads().items()
            if name not in encoded.touched
            for parameter in head.parameters()
            if not isinstance(parameter, DTensor)
        ]
        return 0.0 * torch.stack(untouched).sum() if untouched else 0.0

    @torch.no_grad()
    def _values(self, batch: Batch, encoded: Encoded, output: LossOutput, grad_norm: Tensor, lr: float) -> dict[str, Any]:
        values: dict[str, Any] = self._newest_of_items | {f"train/loss/{name}": value for name, value in output.terms.items()}
        values |= {
            "train/loss/total": output.loss,
            "train/grad_norm": grad_norm,
            "train/lr": lr,
            "train/num_skipped_steps": float(self.num_skipped_steps),
        }
        if encoded.logit_scale is not None:
            values["train/logit_scale"] = encoded.logit_scale
        if batch.varies:
            values["train/num_items"] = float(batch.counts()["item"] * world_size())
        if encoded.plan is not None and self.mixing is not None:
            values |= {
                "train/mixing/lam": encoded.plan.lam.float().mean(),
                "train/mixing/gamma": self.mixing.gamma,
                "train/mixing/num_mixed": float(len(encoded.plan.rows) * self.trainer.world_size),
            }
            if encoded.plan.windows is not None:
                values["train/mixing/side"] = float(encoded.plan.windows.side)
        return values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also store the facts that the model was built from."""
        super().on_save_checkpoint(checkpoint)
        if self.facts:
            checkpoint["timix"]["facts"] = self.facts


@torch.no_grad()
def _values_of_head(encoded: Encoded, output: LossOutput, batch: Batch) -> dict[str, Tensor]:
    """Values of the PTA head's last batch, on the device: of region images, or else of mixed images. They are stored until the next logged
    step, which may have none."""
    if encoded.region_logits is not None and isinstance(batch, PairBatch) and batch.regions is not None:
        term, logits, labels = "patch_text", encoded.region_logits, batch.regions.patch_labels
    elif encoded.mixed_logits is not None and encoded.mixed_labels is not None:
        term, logits, labels = "patch_text_mixed", encoded.mixed_logits, encoded.mixed_labels
    else:
        return {}
    said, true = logits > 0, labels > 0
    hits = (said & true).sum()
    return {
        f"train/loss/{term}": output.terms[term].detach(),
        "train/pta/precision": hits / said.sum().clamp(min=1),
        "train/pta/recall": hits / true.sum().clamp(min=1),
    }
