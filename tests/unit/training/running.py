"""Short runs of the training module on ready-made batches."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from tests.objective import pair_objective
from tests.optim import optim_settings
from tests.tiny import random_pairs, random_regions
from timix_pl.training.checkpoint_io import AtomicCheckpointIO
from timix_pl.training.module import TrainModule

GLOBAL_BATCH_SIZE = 8


class Rows(Logger):
    """Keeps what is logged: one dict per row."""

    name = version = "rows"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append({"step": step} | metrics)


class AtEachStep(Callback):
    """Calls ``before(module)`` when a step starts, after the other callbacks, and ``after(module)`` when it has ended."""

    def __init__(self, before=None, after=None):
        self.before, self.after = before, after

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.before:
            self.before(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.after:
            self.after(pl_module)


def ready_batches(model, num_steps, *, regions=True, batch_size=GLOBAL_BATCH_SIZE):
    return [
        random_pairs(model, batch_size, seed, regions=random_regions(model, 3, 5, seed) if regions else None) for seed in range(num_steps)
    ]


def training_module(model, *, num_steps=4, objective=None, optim=None, **options):
    defaults = {"global_batch_size": GLOBAL_BATCH_SIZE, "planned_samples": num_steps * GLOBAL_BATCH_SIZE, "seed": 0, "log_every_n_steps": 1}
    optim = optim or optim_settings(lr=1e-3, schedule="constant", warmup_frac=0.0)
    return TrainModule(model, objective or pair_objective(), optim, **(defaults | options))


def trainer_for(max_steps, *, callbacks=(), logger=None, root: Path | None = None, accelerator="cpu", devices=1, **options):
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        max_steps=max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=[logger or Rows()],
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=root,
        enable_checkpointing=any(hasattr(callback, "folder") for callback in callbacks),
        use_distributed_sampler=False,
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        **options,
    )


def fit(module, batches, *, callbacks=(), **options):
    """Train on all batches; returns the rows logged."""
    trainer = trainer_for(len(batches), callbacks=callbacks, **options)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return trainer.loggers[0].rows


def weights_of(module: torch.nn.Module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
