"""Build a whole run from its configuration."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from timix_pl.building.checkpoints import load_weights
from timix_pl.building.data import loading_options, num_steps, prepare_data
from timix_pl.building.devices import check_batches
from timix_pl.building.keys import RUN
from timix_pl.building.mixing import build_mixing, check_mixing_happens
from timix_pl.building.model import build_model, check_model, save_memory_and_time
from timix_pl.building.optim import build_optim
from timix_pl.building.trainer import build_trainer
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import in_keys
from timix_pl.data.datamodule import StepDataModule
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.training.module import TrainModule


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """The parts of a run, ready for ``trainer.fit(module, datamodule=data)``."""

    module: TrainModule
    data: StepDataModule
    trainer: Trainer


@in_keys(RUN)
def assemble(cfg: RootConfig, checkpoint: Path | None = None, *, told_to_stop: Callable[[], bool] = lambda: False) -> Assembled:
    """Prepare the data of a checked configuration and build the run.

    Args:
        checkpoint: the run resumes from it; its weights are loaded when training starts.
        told_to_stop: see :class:`timix_pl.training.step_module.StepModule`.
    Raises:
        TimixError: an error that the user can fix: data, model, or options that contradict the model or the number of ranks.
    """
    run_dir = Path(cfg.run_dir)
    prepared = copy.deepcopy(cfg)
    prepare_data(prepared)
    if cfg.trainer.num_threads is not None:
        torch.set_num_threads(cfg.trainer.num_threads)
    torch.manual_seed(cfg.seed)
    task = TASKS[cfg.task](prepared)
    samples, regions = task.samples(), task.regions()
    facts = task.learn_facts(samples) if checkpoint is None else task.facts_of(checkpoint)
    model = task.model(task.encoder(checkpoint), facts)
    objective = task.objective(model)
    data = StepDataModule(
        samples,
        regions,
        make_set=task.make_set(model, facts, samples, regions),
        max_steps=num_steps(cfg, samples.num_samples or 0),
        **loading_options(cfg),
    )
    check_mixing_happens(cfg, build_mixing(cfg, model.patch_grid), data.max_steps)
    module = TrainModule(
        model,
        objective,
        build_optim(cfg),
        groups=task.parameter_groups,
        facts=facts,
        global_batch_size=cfg.data.global_batch_size,
        planned_samples=data.max_steps * cfg.data.global_batch_size,
        seed=cfg.seed,
        non_finite=cfg.trainer.non_finite,
        log_every_n_steps=cfg.trainer.log_every_n_steps,
        micro_batch_size=cfg.trainer.micro_batch_size,
        told_to_stop=told_to_stop,
    )
    module.parameter_groups()  # raises before anything is written if the optimizer does not fit the towers
    trainer = build_trainer(prepared, task, model, data, run_dir)
    save_memory_and_time(cfg, model)
    check_batches(cfg, trainer.world_size)
    check_model(cfg, model, trainer.world_size)
    return Assembled(module=module, data=data, trainer=trainer)


@in_keys(RUN)
def load_model(cfg: RootConfig, checkpoint: Path, weights: str | None = None) -> tuple[AnyModel, int]:
    """The model of a run with the weights of a checkpoint, without further loss terms; and the checkpoint's step.

    Args:
        weights: ``last`` or ``ema``; None: the value of ``evaluation.weights``.
    Raises:
        RunError: the checkpoint cannot be read, belongs to another model, or lacks these weights.
    """
    task = TASKS[cfg.task](cfg)
    model = task.model(build_model(cfg, load_weights=False), task.facts_of(checkpoint))
    return model, load_weights(model, checkpoint, weights or cfg.evaluation.weights)
