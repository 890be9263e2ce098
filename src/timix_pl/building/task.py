"""What a run trains: the base of the entries of ``task``. Each of timix-pl's own has a file in :mod:`timix_pl.building.tasks`."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback

from timix_pl.building.checkpoints import Facts, find_checkpoint, load_weights, saved_facts
from timix_pl.building.data import batch_options, build_stream
from timix_pl.building.model import build_model
from timix_pl.config.schema import RootConfig
from timix_pl.data.sets.item_set import ItemSet, TaskItems
from timix_pl.data.sets.resampled import ResampledShards
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.sets.step_set import StepSet
from timix_pl.mixing.mixer import Mixer
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import AnyModel, FineTuned
from timix_pl.training.objective import Objective
from timix_pl.training.step_cost import ItemWorkload, Workload
from timix_pl.training.step_module import OptimSettings

log = logging.getLogger(__name__)


class Task(ABC):
    """What a run trains.

    Args:
        cfg: a checked configuration.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""
    sample: ClassVar[str]
    """What the global batch counts, such as "pair"."""

    def __init__(self, cfg: RootConfig):
        self.cfg = cfg

    @abstractmethod
    def samples(self) -> SampleStream | ResampledShards:
        """The training samples.

        Raises:
            DataError: missing shards.
        """

    def regions(self) -> SampleStream | None:
        """Region images, or None where there are none."""
        return None

    def learn_facts(self, samples: Any) -> Facts:
        """What the model is built from besides the configuration, such as the answers that it knows. A checkpoint keeps it.

        Raises:
            DataError: the samples have nothing to learn.
        """
        return {}

    def facts_of(self, checkpoint: Path) -> Facts:
        """The same from a checkpoint of the run.

        Raises:
            RunError: it has none.
        """
        return {}

    def encoder(self, checkpoint: Path | None) -> DualEncoder:
        """The towers as the run starts with them. Weights that the checkpoint brings are not loaded from elsewhere."""
        return build_model(self.cfg, load_weights=checkpoint is None)

    @abstractmethod
    def model(self, encoder: DualEncoder, facts: Facts | None) -> AnyModel:
        """What is trained.

        Args:
            facts: None: the data is not known, as in a dry run.
        """

    @abstractmethod
    def objective(self, model: Any) -> Objective:
        """The loss. It may add further terms to the model."""

    @abstractmethod
    def make_set(self, model: Any, facts: Facts, samples: Any, regions: SampleStream | None) -> Callable[..., StepSet]:
        """The batches of a rank by step, from ``rank=`` and ``world_size=``."""

    def parameter_groups(self, model: Any, optim: OptimSettings) -> list[dict[str, Any]]:
        """What the optimizer is given; ``lr_scale`` of a group, where it has one, multiplies the learning rate."""
        return optim.parameter_groups(model, model.parts())

    @abstractmethod
    def workload(self, model: Any, mixer: Mixer | None) -> Workload:
        """What a step computes, to estimate what it costs."""

    @abstractmethod
    def most_counts(self, num_ranks: int) -> dict[str, int]:
        """The most of each part of the workload that a rank has in a step."""

    def mean_counts(self) -> dict[str, float]:
        """How many of each part of the workload all ranks have in a step, in the mean over steps."""
        return dict(self.most_counts(1))

    def callbacks(self, model: Any, run_dir: Path) -> list[Callback]:
        """Further callbacks."""
        return []


class FineTuning(Task):
    """A task that is learnt on the towers of a pre-trained model, from the items of each image, such as questions or captions."""

    sample = "image"

    @abstractmethod
    def items(self, model: Any, facts: Facts | None) -> TaskItems:
        """What is learnt of an image.

        Args:
            facts: None: the data is not known, as in a dry run.
        """

    @abstractmethod
    def assumed(self) -> tuple[str, Any]:
        """What an image brings in an estimate of the cost: in words, and one item as :meth:`items` gives it."""

    def samples(self) -> SampleStream:
        """See :class:`Task`."""
        return build_stream(self.cfg, "train")

    def facts_of(self, checkpoint: Path) -> Facts:
        """See :class:`Task`."""
        return saved_facts(checkpoint)

    def encoder(self, checkpoint: Path | None) -> DualEncoder:
        """With the weights of ``init``, unless the run goes on from a checkpoint of its own."""
        cfg = self.cfg
        encoder = build_model(cfg, load_weights=cfg.init is None and checkpoint is None)
        if checkpoint is None and cfg.init is None:
            start = f"model.pretrained={cfg.model.pretrained}" if cfg.model.pretrained else "nothing"
            log.info("init is not set: the towers start from %s", start)
        elif checkpoint is None:
            path = find_checkpoint(Path(str(cfg.init)), "init")
            load_weights(encoder, path)
            log.info("the towers start from %s", path)
        return encoder

    def objective(self, model: FineTuned) -> Objective:
        """The sum of the terms that the model brings."""
        return Objective()

    def make_set(self, model: FineTuned, facts: Facts, samples: Any, regions: SampleStream | None) -> Callable[..., StepSet]:
        """See :class:`Task`."""
        cfg, items = self.cfg, self.items(model, facts)
        return partial(ItemSet, samples, items, items_per_image=cfg.tune.items_per_image, **batch_options(cfg, model))

    def parameter_groups(self, model: FineTuned, optim: OptimSettings) -> list[dict[str, Any]]:
        """The head's, then those of the towers that are tuned."""
        return optim.fine_tuning_groups(model.head, model.encoder, towers_lr_scale=self.cfg.tune.lr_scale)

    def workload(self, model: FineTuned, mixer: Mixer | None) -> Workload:
        """See :class:`Task`."""
        words, item = self.assumed()
        return ItemWorkload(model, self.items(model, None).collate([item])[0], words)

    def most_counts(self, num_ranks: int) -> dict[str, int]:
        """See :class:`Task`."""
        num_images = math.ceil(self.cfg.data.global_batch_size / num_ranks)
        return {"image": num_images, "item": num_images * self.cfg.tune.items_per_image}
