"""Training batches for Lightning, in an order that a resumed run continues."""

from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import Sampler

from timix_pl.core.distributed import rank, world_size
from timix_pl.core.errors import RunError
from timix_pl.data.loader import Loader
from timix_pl.data.sets.resampled import ResampledSet, ResampledShards
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.sets.step_set import StepSet


class StepSampler(Sampler[int]):
    """The numbers of the steps that are left. Its length is that of the whole run, which Lightning's progress needs after a resume."""

    def __init__(self, first_step: int, max_steps: int):
        self.first_step, self.max_steps = first_step, max_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first_step, self.max_steps))

    def __len__(self) -> int:
        return self.max_steps


class StepDataModule(LightningDataModule):
    """The batches of a run by step, and their state for checkpoints.

    Args:
        pairs: the stream of samples, or shards drawn with replacement.
        regions: the stream of region images, or None.
        make_set: the batches of a rank by step, from ``rank=`` and ``world_size=``.
        global_batch_size: samples per step over all ranks.
        max_steps: steps of the whole run.
        num_workers: loader processes.
        prefetch_batches: batches that each process prepares ahead.
        allow_changed: continue although the shards differ from those of the checkpoint.
    Raises:
        RunError: on loading a checkpoint whose shards, seed or batch size differ.
    """

    def __init__(
        self,
        pairs: SampleStream | ResampledShards,
        regions: SampleStream | None = None,
        *,
        make_set: Callable[..., StepSet],
        global_batch_size: int,
        max_steps: int,
        seed: int,
        num_workers: int = 2,
        prefetch_batches: int = 4,
        allow_changed: bool = False,
    ):
        super().__init__()
        self.pairs, self.regions, self._make_set = pairs, regions, make_set
        self.max_steps, self.global_batch_size, self.seed = max_steps, global_batch_size, seed
        self._num_workers, self._prefetch_batches, self._allow_changed = num_workers, prefetch_batches, allow_changed

    def training_set(self) -> StepSet:
        """This rank's batches by step."""
        return self._make_set(rank=rank(), world_size=world_size())

    @property
    def fingerprint(self) -> str:
        """A hash of the shards, their weights and the shuffling window."""
        return "-".join(stream.fingerprint for stream in (self.pairs, self.regions) if stream is not None)

    def train_dataloader(self) -> Loader:
        """One item is one optimizer step. The loader starts after the steps that are done."""
        assert self.trainer is not None
        dataset: Any = self.training_set()
        sampler: StepSampler | None = StepSampler(self.trainer.global_step, self.max_steps)
        if isinstance(self.pairs, ResampledShards):
            dataset, sampler = ResampledSet(self.pairs, dataset, self.trainer.global_step, self.max_steps), None
        return Loader(
            dataset,
            sampler=sampler,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch_batches if self._num_workers else None,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def state_dict(self) -> dict[str, Any]:
        """The position of the streams, counted from finished steps. It is the same on every rank."""
        assert self.trainer is not None
        consumed = self.trainer.global_step * self.global_batch_size
        epoch = consumed // self.pairs.num_samples if self.pairs.num_samples else None
        streams = {"fingerprint": self.fingerprint, "seed": self.seed, "global_batch_size": self.global_batch_size}
        return streams | {"epoch": epoch, "consumed": consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to these streams. Their position follows from the trainer's step."""
        if state_dict["fingerprint"] != self.fingerprint and not self._allow_changed:
            raise RunError(
                f"`pairs`, `regions`: fingerprint {self.fingerprint}, but the checkpoint was made with {state_dict['fingerprint']}: "
                "the shards, their weights or `window_shards` have changed. Restore them, or set `allow_changed=True`"
            )
        for name, value in (("seed", self.seed), ("global_batch_size", self.global_batch_size)):
            if value != (before := state_dict[name]):
                raise RunError(f"`{name}={value}`: the checkpoint was made with {before}; use that, or start another run")
