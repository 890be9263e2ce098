"""From the configuration to the parts of a fine-tuning run."""

import logging
from pathlib import Path

from timix_pl.building.checkpoints import Facts, find_checkpoint, load_weights, saved_facts
from timix_pl.building.data import build_stream, image_options, loading_options, num_steps
from timix_pl.building.model import build_model, load_encoder
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import is_pretraining
from timix_pl.core.choices import TASKS
from timix_pl.data.datamodule import TaskDataModule
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import AnyModel, FineTuned

log = logging.getLogger(__name__)


def build_fine_tuning(cfg: RootConfig, checkpoint: Path | None) -> tuple[FineTuned, TaskDataModule, Facts]:
    """The model, with the weights of ``init`` unless the run goes on from a checkpoint of its own; its data; and its facts.

    Raises:
        TimixError: missing shards, shards without what the task learns, a checkpoint of another kind.
    """
    parts, samples = TASKS[cfg.task], build_stream(cfg, "train")
    facts = parts.learn_facts(cfg, samples) if checkpoint is None else saved_facts(checkpoint)
    encoder = build_model(cfg, load_weights=cfg.init is None and checkpoint is None)
    if checkpoint is None:
        _start(cfg, encoder)
    model = parts.model(cfg, encoder, facts)
    data = TaskDataModule(
        samples,
        parts.items(cfg, model, facts),
        items_per_image=cfg.tune.items_per_image,
        max_steps=num_steps(cfg, samples.num_samples),
        **loading_options(cfg),
        **image_options(cfg, encoder),
    )
    return model, data, facts


def build_task_model(cfg: RootConfig, checkpoint: Path) -> tuple[AnyModel, int]:
    """The model of a run as one of its checkpoints holds it, whatever the task, and the step after which that was written.

    Raises:
        RunError: the checkpoint cannot be read, or belongs to another model.
    """
    if is_pretraining(cfg):
        return load_encoder(cfg, checkpoint, cfg.evaluation.weights)
    model = TASKS[cfg.task].model(cfg, build_model(cfg, load_weights=False), saved_facts(checkpoint))
    return model, load_weights(model, checkpoint, cfg.evaluation.weights)


def _start(cfg: RootConfig, encoder: DualEncoder) -> None:
    if cfg.init is None:
        log.info(
            "init is not set: the towers start from %s", f"model.pretrained={cfg.model.pretrained}" if cfg.model.pretrained else "nothing"
        )
        return
    path = find_checkpoint(Path(cfg.init), "init")
    load_weights(encoder, path)
    log.info("the towers start from %s", path)
