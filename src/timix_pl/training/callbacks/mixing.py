"""The mixing schedule: when and how strongly images are mixed."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.mixing.mixer import Mixer
from timix_pl.training.module import MixNow, TrainModule


class MixingCallback(Callback):
    """Sets the module's mixing before each step, according to the schedule.

    During the warm-up, gamma rises from 0 with ``compute=extra``, and the ratio with ``replace``.

    Args:
        mixer: the strategy.
        ratio: share of the rows of each group that are mixed.
        compute: ``extra`` or ``replace``.
        gamma: weight of the mixed images' loss, with ``extra``.
        warmup_frac: length of the warm-up, as a share of the planned samples.
        stop_frac: mixing ends after this share of the planned samples.
        group_size: rows per group.
        first_samples: samples before mixing starts, so that the PTA head is trained first. If mixed images teach the head, it is the
            number of samples before the head chooses the windows: until then, all mixed images are mosaics.
        first_frac: the same as a share of the planned samples. The later of both counts.
        teaches: mixed images teach the PTA head.
        mosaic_frac: share of the mixed images that are mosaics, if mixed images teach the head.
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        ratio: float = 1.0,
        compute: str = "extra",
        gamma: float = 1.0,
        warmup_frac: float = 0.0,
        stop_frac: float = 1.0,
        group_size: int = 32,
        first_samples: int = 0,
        first_frac: float = 0.0,
        teaches: bool = False,
        mosaic_frac: float = 0.0,
    ):
        self.mixer, self.ratio, self.compute, self.gamma = mixer, ratio, compute, gamma
        self.warmup_frac, self.stop_frac, self.group_size, self.first_samples = warmup_frac, stop_frac, group_size, first_samples
        self.first_frac, self.teaches, self.mosaic_frac = first_frac, teaches, mosaic_frac

    def first(self, planned_samples: int) -> float:
        """The number of samples before the strategy starts."""
        return max(self.first_samples, self.first_frac * planned_samples)

    def strength(self, consumed: int, planned_samples: int) -> float:
        """The strength of mixing, from 0 (none) to 1 (full), in the step that starts after ``consumed`` samples."""
        first = 0 if self.teaches else self.first(planned_samples)
        if consumed < first or consumed >= self.stop_frac * planned_samples:
            return 0.0
        warmup = self.warmup_frac * planned_samples
        return min(1.0, (consumed - first) / warmup) if warmup else 1.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the module's mixing for this step."""
        assert isinstance(pl_module, TrainModule)
        mosaic_frac = 1.0 if self.teaches and pl_module.consumed < self.first(pl_module.planned_samples) else self.mosaic_frac
        strength = self.strength(pl_module.consumed, pl_module.planned_samples)
        if strength == 0.0:
            pl_module.mixing = None
        elif self.compute == "replace":
            pl_module.mixing = MixNow(self.mixer, "replace", self.ratio * strength, 1.0, self.group_size, mosaic_frac, self.teaches)
        else:
            pl_module.mixing = MixNow(self.mixer, "extra", self.ratio, self.gamma * strength, self.group_size, mosaic_frac, self.teaches)
