"""The optimizer and the learning rate of a run, and the parameter groups that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from timix_pl.optim.groups import hidden_matrices, lr_scales, parameter_groups
from timix_pl.optim.optimizer import OptimizerChoice
from timix_pl.optim.optimizers.adamw import AdamW
from timix_pl.optim.schedule import Schedule
from timix_pl.optim.schedules.cosine import Cosine


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """The optimizer and the learning rate.

    Args:
        optimizer: builds the optimizer.
        schedule: the learning rate schedule.
        lr: peak learning rate.
        weight_decay: of matrices; see :func:`timix_pl.optim.groups.parameter_groups`.
        warmup_frac: share of the samples planned at the run's first start over which the learning rate rises.
        clip_grad_norm: largest norm of the gradient; None: no clipping.
        image_lr_scale, text_lr_scale, head_lr_scale: factors on ``lr`` for the towers and for all heads.
        layer_decay: see :func:`timix_pl.optim.groups.lr_scales`.
        ema: decay of the moving average of the weights; None: no average.
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
        """The optimizer's parameter groups.

        Args:
            parts: the model's parts by name.
        Raises:
            ModelError: the settings need the blocks of a tower, but they cannot be counted.
        """
        scales = lr_scales(parts, image=self.image_lr_scale, text=self.text_lr_scale, head=self.head_lr_scale, layer_decay=self.layer_decay)
        hidden = hidden_matrices(parts, self.optimizer.choice) if self.optimizer.for_hidden_matrices else ()
        return parameter_groups(model, self.weight_decay, lr_scales=scales, hidden=hidden)

    def fine_tuning_groups(self, head: torch.nn.Module, encoder: Any, *, towers_lr_scale: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups for fine-tuning: those of the head, then those of the trained parts of the towers.

        Args:
            towers_lr_scale: factor on ``lr`` for the towers.
        """
        groups = []
        for part, parts, scale in ((head, {"head": head}, 1.0), (encoder, encoder.parts(), towers_lr_scale)):
            groups += [group | {"lr_scale": scale * group.get("lr_scale", 1.0)} for group in self.parameter_groups(part, parts)]
        return groups
