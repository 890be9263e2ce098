"""Training batches for Lightning, in an order that a resumed run continues."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Sampler

from timix_pl.core.distributed import rank, world_size
from timix_pl.core.errors import RunError
from timix_pl.data.loader import Loader
from timix_pl.data.sets.resampled import ResampledSet, ResampledShards
from timix_pl.data.sets.task_set import TaskItems, TaskSet
from timix_pl.data.sets.training_set import SampleStream, TrainingSet

LOADING = {"global_batch_size", "max_steps", "seed", "num_workers", "prefetch_batches", "allow_changed"}
"""Options of every data module. Its other options are those of its data set."""


class StepSampler(Sampler[int]):
    """The numbers of the steps that are left. Its length is that of the whole run, which Lightning's progress needs after a resume."""

    def __init__(self, first_step: int, max_steps: int):
        self.first_step, self.max_steps = first_step, max_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first_step, self.max_steps))

    def __len__(self) -> int:
        return self.max_steps


class StepDataModule(LightningDataModule, ABC):
    """The batches of a run by step, and their state for checkpoints.

    Args:
        pairs: the stream of samples, or shards drawn with replacement.
        regions: the stream of region images, or None.
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
        global_batch_size: int,
        max_steps: int,
        seed: int,
        num_workers: int = 2,
        prefetch_batches: int = 4,
        allow_changed: bool = False,
    ):
        super().__init__()
        self.pairs, self.regions = pairs, regions
        self.max_steps, self.global_batch_size, self.seed = max_steps, global_batch_size, seed
        self._num_workers, self._prefetch_batches, self._allow_changed = num_workers, prefetch_batches, allow_changed

    @abstractmethod
    def training_set(self) -> Any:
        """This rank's batches by step."""

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
                f"data.train_shards, data.region_shards: fingerprint {self.fingerprint}, but the checkpoint was made with "
                f"{state_dict['fingerprint']}: "
                "the shards, their weights or data.shuffle_window_shards have changed. Restore them, or set data.allow_changed=true"
            )
        for key, value, before in (
            ("seed", self.seed, state_dict["seed"]),
            ("data.global_batch_size", self.global_batch_size, state_dict["global_batch_size"]),
        ):
            if value != before:
                raise RunError(f"{key}={value}: the checkpoint was made with {before}; use that, or another run_dir")


class PretrainDataModule(StepDataModule):
    """The pairs and regions of a pre-training run.

    Args:
        pairs, regions: see :class:`StepDataModule`.
        tokenizer: captions to tokens.
        loading: the options of :class:`StepDataModule`.
        options: see :class:`timix_pl.data.sets.training_set.TrainingSet`.
    """

    def __init__(
        self,
        pairs: SampleStream | ResampledShards,
        regions: SampleStream | None,
        tokenizer: Callable[[list[str]], Tensor],
        **options: Any,
    ):
        loading = {name: options.pop(name) for name in LOADING & options.keys()}
        super().__init__(pairs, regions, **loading)
        self._tokenizer, self._options = tokenizer, options

    def training_set(self) -> TrainingSet:
        """This rank's batches by step."""
        return TrainingSet(
            self.pairs if isinstance(self.pairs, SampleStream) else None,
            self.regions,
            self._tokenizer,
            global_batch_size=self.global_batch_size,
            seed=self.seed,
            rank=rank(),
            world_size=world_size(),
            **self._options,
        )


class TaskDataModule(StepDataModule):
    """The images of a fine-tuning run, and what its task learns from them.

    Args:
        samples: the stream of images.
        task_items: what the task learns from an image.
        options: of :class:`StepDataModule`, and of :class:`timix_pl.data.sets.task_set.TaskSet`.
    """

    def __init__(self, samples: SampleStream, task_items: TaskItems, **options: Any):
        loading = {name: options.pop(name) for name in LOADING & options.keys()}
        super().__init__(samples, **loading)
        self._samples, self._task_items, self._options = samples, task_items, options

    def training_set(self) -> TaskSet:
        """This rank's batches by step."""
        return TaskSet(
            self._samples,
            self._task_items,
            global_batch_size=self.global_batch_size,
            seed=self.seed,
            rank=rank(),
            world_size=world_size(),
            **self._options,
        )
