"""The pre-training LightningModule: one training step, and what it logs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from timix_pl.core.randomness import seed_of
from timix_pl.core.types import Batch, LossOutput, RegionBatch
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import DualEncoder, Encoded
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.training.accumulation import Chunk, accumulate, split
from timix_pl.training.objective import Objective
from timix_pl.training.step_module import OptimSettings, StepModule


class MixNow(NamedTuple):
    """The mixing callback's word on the coming step."""

    mixer: Mixer
    compute: str
    ratio: float
    gamma: float
    group_size: int


class PretrainModule(StepModule):
    """Contrastive pre-training with text-aware mixing.

    The mixing callback sets :attr:`mixing` before each step. One step is one forward call of the model, one backward, one optimizer step.

    Args:
        model: the dual encoder.
        objective: losses and their weights.
        optim: optimizer and schedule.
        options: see :class:`timix_pl.training.step_module.StepModule`; samples are pairs.
    """

    model: DualEncoder

    def __init__(self, model: DualEncoder, objective: Objective, optim: OptimSettings, **options: Any):
        super().__init__(model, optim, **options)
        self.objective = objective
        self.mixing: MixNow | None = None
        self._newest_region_values: dict[str, Tensor] = {}

    def training_step(self, batch: tuple[Batch, RegionBatch | None], batch_idx: int) -> None:
        """Encode, mix, compare, learn: one optimizer step."""
        pairs, regions = batch
        lr = self.set_learning_rate()
        encoded, output = self._gradients(pairs, regions)
        self.check_finite()
        grad_norm = self.update(output.loss, output.terms, pairs.keys)
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
        self.backward_chunk(loss + self._untouched_parameters(encoded) if last else loss, last=last)

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
            joined = self.model.tokenizer(mixer.join(pairs.captions, rows, partners)).to(self.device, non_blocking=True)
        chosen = MixRows(rows=rows, partners=partners, seed=self.seed, step=step, first=pairs.first, device=self.device)
        return MixStep(mixer=mixer, compute=compute, chosen=chosen, joined_tokens=joined)

    def dropout(self, pairs: Batch) -> PatchDropout | None:
        """This step's patch dropout, or None where nothing is dropped."""
        share = self.model.patch_dropout
        return PatchDropout(share, self.seed, self.global_step, pairs.first) if share else None

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
