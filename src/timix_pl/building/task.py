"""Base classes of tasks (``task=NAME``). Each task of timix-pl has a file in :mod:`timix_pl.building.tasks`."""

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
from timix_pl.optim.settings import OptimSettings
from timix_pl.training.objective import Objective
from timix_pl.training.step_cost import ItemWorkload, Workload

log = logging.getLogger(__name__)


class Task(ABC):
    """A task: builds what is specific to it, such as the data, the model and the loss.

    Args:
        cfg: a checked configuration.
    """

    choice: ClassVar[str]
    """The name that it is registered under."""
    sample: ClassVar[str]
    """What the global batch size counts, such as "pair"."""

    def __init__(self, cfg: RootConfig):
        self.cfg = cfg

    @abstractmethod
    def samples(self) -> SampleStream | ResampledShards:
        """The training samples.

        Raises:
            DataError: missing shards.
        """

    def regions(self) -> SampleStream | None:
        """The region images; None if the task uses none."""
        return None

    def learn_facts(self, samples: Any) -> Facts:
        """The facts that the model is built from besides the configuration, such as the answers that it can give.

        Raises:
            DataError: the samples have nothing that the task can learn.
        """
        return {}

    def facts_of(self, checkpoint: Path) -> Facts:
        """The facts in a checkpoint of the run.

        Raises:
            RunError: the checkpoint has none.
        """
        return {}

    def encoder(self, checkpoint: Path | None) -> DualEncoder:
        """The towers at the start of the run. Pretrained weights are not loaded if ``checkpoint`` will replace them."""
        return build_model(self.cfg, load_weights=checkpoint is None)

    @abstractmethod
    def model(self, encoder: DualEncoder, facts: Facts | None) -> AnyModel:
        """The model that is trained.

        Args:
            facts: None: the data is not known, as in a dry run.
        """

    @abstractmethod
    def objective(self, model: Any) -> Objective:
        """The loss. It may add further terms to the model."""

    @abstractmethod
    def make_set(self, model: Any, facts: Facts, samples: Any, regions: SampleStream | None) -> Callable[..., StepSet]:
        """A function of ``rank=`` and ``world_size=`` that gives the batches of that rank, one per step."""

    def parameter_groups(self, model: Any, optim: OptimSettings) -> list[dict[str, Any]]:
        """The optimizer's parameter groups. A group's ``lr_scale``, if present, multiplies the learning rate."""
        return optim.parameter_groups(model, model.parts())

    @abstractmethod
    def workload(self, model: Any, mixer: Mixer | None) -> Workload:
        """What a step computes, to estimate its cost."""

    @abstractmethod
    def most_counts(self, num_ranks: int) -> dict[str, int]:
        """The largest count of each part of the workload in a step, per rank."""

    def mean_counts(self) -> dict[str, float]:
        """The count of each part of the workload in a step, over all ranks, averaged over steps."""
        return dict(self.most_counts(1))

    def callbacks(self, model: Any, run_dir: Path) -> list[Callback]:
        """Callbacks that only this task needs."""
        return []


class FineTuning(Task):
    """A task that fine-tunes a pre-trained model. It learns from the items of each image, such as questions or captions."""

    sample = "image"

    @abstractmethod
    def items(self, model: Any, facts: Facts | None) -> TaskItems:
        """How an image's items are read and collated.

        Args:
            facts: None: the data is not known, as in a dry run.
        """

    @abstractmethod
    def assumed(self) -> tuple[str, Any]:
        """The items of an image that a cost estimate assumes: a description, and one item as :meth:`items` gives it."""

    def samples(self) -> SampleStream:
        """See :class:`Task`."""
        return build_stream(self.cfg, "train")

    def facts_of(self, checkpoint: Path) -> Facts:
        """See :class:`Task`."""
        return saved_facts(checkpoint)

    def encoder(self, checkpoint: Path | None) -> DualEncoder:
        """The towers with the weights of ``init``, unless the run resumes from its own checkpoint."""
        cfg = self.cfg
        encoder = build_model(cfg, load_weights=cfg.init is None and checkpoint is None)
        if checkpoint is None and cfg.init is None:
            start = f"model.pretrained={cfg.model.pretrained}" if cfg.model.pretrained else "random weights"
            log.info("init is not set: the towers start from %s", start)
        elif checkpoint is None:
            path = find_checkpoint(Path(str(cfg.init)), "init")
            load_weights(encoder, path)
            log.info("the towers start from %s", path)
        return encoder

    def objective(self, model: FineTuned) -> Objective:
        """The sum of the model's own loss terms."""
        return Objective()

    def make_set(self, model: FineTuned, facts: Facts, samples: Any, regions: SampleStream | None) -> Callable[..., StepSet]:
        """See :class:`Task`."""
        cfg, items = self.cfg, self.items(model, facts)
        return partial(ItemSet, samples, items, items_per_image=cfg.tune.items_per_image, **batch_options(cfg, model))

    def parameter_groups(self, model: FineTuned, optim: OptimSettings) -> list[dict[str, Any]]:
        """The groups of the head, then those of the trained parts of the towers."""
        return optim.fine_tuning_groups(model.head, model.encoder, towers_lr_scale=self.cfg.tune.lr_scale)

    def workload(self, model: FineTuned, mixer: Mixer | None) -> Workload:
        """See :class:`Task`."""
        words, item = self.assumed()
        return ItemWorkload(model, self.items(model, None).collate([item])[0], words)

    def most_counts(self, num_ranks: int) -> dict[str, int]:
        """See :class:`Task`."""
        num_images = math.ceil(self.cfg.data.global_batch_size / num_ranks)
        return {"image": num_images, "item": num_images * self.cfg.tune.items_per_image}
