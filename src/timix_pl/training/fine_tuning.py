"""The LightningModule of all fine-tuning tasks: one training step, and what it logs."""

from typing import Any

import torch
from torch import Tensor

from timix_pl.core.distributed import sum_over_ranks, world_size
from timix_pl.core.memory import return_free_memory
from timix_pl.core.randomness import seed_of
from timix_pl.core.types import TaskBatch
from timix_pl.models.fine_tuned import FineTuned
from timix_pl.training.step_module import OptimSettings, StepModule

_STEPS_PER_RETURN = 10


class FineTuneModule(StepModule):
    """Teaches a model a task. The loss is the sum of its terms, each the mean over the items of the global batch.

    Args:
        model: the encoder with the task's head.
        optim: optimizer and schedule.
        lr_scale: the towers' learning rate, as a share of the head's.
        facts: what the model was built from besides the configuration, such as the answers that it knows; kept in the checkpoint.
        options: see :class:`timix_pl.training.step_module.StepModule`; samples are images.
    """

    model: FineTuned

    def __init__(
        self, model: FineTuned, optim: OptimSettings, *, lr_scale: float = 1.0, facts: dict[str, Any] | None = None, **options: Any
    ):
        super().__init__(model, optim, **options)
        self.lr_scale, self.facts = lr_scale, facts or {}

    def training_step(self, batch: tuple[TaskBatch, None], batch_idx: int) -> None:
        """Encode, answer, learn: one optimizer step."""
        images, _ = batch
        lr = self.set_learning_rate()
        loss, terms = self._gradients(images)
        self.check_finite()
        grad_norm = self.update(loss, terms, images.keys)
        if self.device.type == "cpu" and self.global_step % _STEPS_PER_RETURN == 0:  # steps differ in their number of items
            return_free_memory()
        if self.logs_now():
            values = {f"train/loss/{name}": value for name, value in terms.items()}
            self.note(
                values
                | {
                    "train/loss/total": loss,
                    "train/grad_norm": grad_norm,
                    "train/lr": lr,
                    "train/num_items": float(len(images.image_index) * world_size()),
                    "train/num_skipped_steps": float(self.num_skipped_steps),
                }
            )

    def _gradients(self, batch: TaskBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward and backward of this rank's batch, whole or in chunks of ``micro_batch_size`` images; the loss and its terms, detached.

        What a rank's loss is divided by makes the average over ranks the mean over the global batch.
        """
        counts = sum_over_ranks(torch.tensor([float(count) for count in batch.num_items.values()], device=self.device))
        share_of = dict(zip(batch.num_items, world_size() / counts.clamp(min=1), strict=True))
        chunks = split(batch, self.micro_batch_size or len(batch.images))
        terms = {name: torch.zeros((), device=self.device) for name in batch.num_items}
        for chunk in chunks:
            torch.manual_seed(seed_of("dropout", self.seed, self.global_step, chunk.first))
            parts = {name: total * share_of[name] for name, total in self.model(chunk).items()}
            terms |= {name: terms[name] + part.detach() for name, part in parts.items()}
            last, loss = chunk is chunks[-1], torch.stack(list(parts.values())).sum()
            self.backward_chunk(loss + self._untouched_parameters() if last else loss, last=last)
        return torch.stack(list(terms.values())).sum(), terms

    def _untouched_parameters(self) -> Tensor:
        """Zero times the head's parameters: a batch may lack what a part of the head is for, and DDP shall see one graph in every step."""
        return 0.0 * torch.stack([parameter.sum() for parameter in self.model.head.parameters()]).sum()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The head's, and those of the towers that are tuned."""
        groups = []
        head, encoder = self.model.head, self.model.encoder
        for part, parts, lr_scale in ((head, {"head": head}, 1.0), (encoder, encoder.parts(), self.lr_scale)):
            of_part = self.optim.parameter_groups(part, parts)
            groups += [group | {"lr_scale": lr_scale * group.get("lr_scale", 1.0)} for group in of_part]
        return groups

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also what the model was built from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["timix"]["facts"] = self.facts


def split(batch: TaskBatch, size: int) -> list[TaskBatch]:
    """The batch in parts of ``size`` images with their items; ``num_items`` stays that of the whole."""
    parts = []
    for start in range(0, len(batch.images), size):
        rows = slice(start, start + size)
        first_item = sum(batch.items_per_image[:start])
        items = slice(first_item, first_item + sum(batch.items_per_image[rows]))
        parts.append(
            batch._replace(
                images=batch.images[rows],
                image_index=batch.image_index[items] - start,
                items_per_image=batch.items_per_image[rows],
                items={name: tensor[items] for name, tensor in batch.items.items()},
                keys=batch.keys[rows],
                first=batch.first + start,
                shards=batch.shards[rows],
            )
        )
    return parts
