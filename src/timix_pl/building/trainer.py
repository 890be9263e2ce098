"""Build Lightning's trainer and its callbacks from the configuration."""

import logging
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from timix_pl.building.devices import build_strategy, cluster_environment, device_peak_flops, lightning_precision, num_devices, on_gpu
from timix_pl.building.entries import create
from timix_pl.building.evaluators import build_evaluators
from timix_pl.building.keys import RUN
from timix_pl.building.mixing import build_mixing
from timix_pl.building.task import Task
from timix_pl.config.schema import Mode, RootConfig, Weights
from timix_pl.config.validate import boxes_teach
from timix_pl.config.values import plain, run_name
from timix_pl.core.choices import CALLBACKS
from timix_pl.core.errors import ConfigError
from timix_pl.data.datamodule import StepDataModule
from timix_pl.evaluation.results import declared_metric
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.training.callbacks.audit import AuditCallback
from timix_pl.training.callbacks.bad_samples import BadSamplesCallback
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.callbacks.profile import ProfileCallback
from timix_pl.training.callbacks.progress import StepProgressBar
from timix_pl.training.callbacks.summary import SummaryCallback
from timix_pl.training.callbacks.throughput import ThroughputCallback
from timix_pl.training.checkpoint_io import AtomicCheckpointIO
from timix_pl.training.step_cost import count_flops

log = logging.getLogger(__name__)


def build_trainer(cfg: RootConfig, task: Task, model: AnyModel, data: StepDataModule, run_dir: Path) -> Trainer:
    """Build Lightning's trainer with all callbacks.

    Raises:
        ConfigError: there is no GPU, or a callback rejects its options.
    """
    gpu = on_gpu(cfg)
    if gpu and not torch.cuda.is_available():
        raise ConfigError([f"trainer.accelerator={cfg.trainer.accelerator}: there is no GPU here; set trainer.accelerator=cpu, or auto"])
    mixing = build_mixing(cfg, model.patch_grid)
    peak_flops = device_peak_flops(cfg)
    flops = _step_flops(task, model, mixing) if peak_flops else None
    evaluation = EvaluationCallback(
        build_evaluators(cfg, model),
        every_n_steps=cfg.evaluation.every_n_steps,
        folder=run_dir,
        averaged=cfg.evaluation.weights is Weights.ema,
    )
    monitor = _monitor(cfg, evaluation)
    audit = AuditCallback(
        run_dir,
        global_batch_size=cfg.data.global_batch_size,
        region_batch_size=cfg.pta.batch_size,
        region_every_n_steps=cfg.pta.every_n_steps,
    )
    regions_per_step = cfg.pta.batch_size / cfg.pta.every_n_steps if boxes_teach(cfg) else 0
    callbacks = [
        *([mixing] if mixing else []),
        ThroughputCallback(peak_flops, flops),
        BadSamplesCallback(
            run_dir / "quarantine.jsonl",
            max_bad_frac=cfg.data.max_bad_frac,
            samples_per_step=cfg.data.global_batch_size + regions_per_step,
            keys=RUN,
        ),
        *([audit] if cfg.data.audit else []),
        evaluation,
        *task.callbacks(model, run_dir),
        *(create(cfg, CALLBACKS, name) for name in cfg.trainer.callbacks),
        CheckpointsCallback(
            run_dir / "checkpoints",
            every_n_steps=cfg.checkpoint.every_n_steps,
            every_n_minutes=cfg.checkpoint.every_n_minutes,
            keep_last=cfg.checkpoint.keep_last,
            evaluation=evaluation,
            monitor=monitor,
            mode=_mode(cfg, evaluation, monitor),
        ),
        SummaryCallback(
            run_dir / "summary.json",
            {"name": run_name(cfg), "num_train_samples": data.pairs.num_samples},
            config=plain(cfg),
            evaluation=evaluation,
        ),
        *([StepProgressBar()] if cfg.trainer.progress_bar else []),
        *([ProfileCallback(run_dir / "profile", *cfg.profile)] if cfg.profile else []),
    ]
    devices = num_devices(cfg)
    # Warnings of Lightning and PyTorch about things that are intended here.
    for intended in (
        "dataloader is not resumable",
        "does not have many workers",
        "command is available on your system but is not used",  # srun
        "smaller than the logging interval",
        "treespec, LeafSpec",
        "returned a view tensor",
        "in eval mode at the start of training",  # frozen towers
    ):
        warnings.filterwarnings("ignore", f".*{intended}.*")
    return Trainer(
        default_root_dir=run_dir,
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        num_nodes=cfg.trainer.num_nodes,
        strategy=build_strategy(cfg, devices * cfg.trainer.num_nodes),
        precision=lightning_precision(cfg, devices * cfg.trainer.num_nodes),  # type: ignore[arg-type]
        max_steps=data.max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), cluster_environment()],
        log_every_n_steps=cfg.trainer.log_every_n_steps,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=cfg.trainer.progress_bar,
    )


def _step_flops(task: Task, model: AnyModel, mixing: MixingCallback | None) -> dict[str, float] | None:
    try:
        return count_flops(task.workload(model, mixing.mixer if mixing else None))
    except Exception as error:  # a tower may use an operation that PyTorch cannot run on shapes only; it can still be trained
        log.warning("train/mfu is left out: the FLOPs of %s cannot be counted (%s)", task.cfg.model.architecture, error)
        return None


def _monitor(cfg: RootConfig, evaluation: EvaluationCallback) -> str | None:
    monitor, names = cfg.checkpoint.monitor, [evaluator.choice for evaluator in evaluation.evaluators]
    if monitor is None or monitor.split("/")[0] in names:
        return monitor
    log.warning("checkpoint.monitor=%s is not evaluated (%s), so there will be no best.ckpt", monitor, ", ".join(names) or "nothing is")
    return None


def _mode(cfg: RootConfig, evaluation: EvaluationCallback, monitor: str | None) -> Mode:
    """The value of ``checkpoint.mode``, or else the metric's own direction."""
    chosen = cfg.checkpoint.mode
    if monitor is None:
        return chosen or Mode.max
    name, _, key = monitor.partition("/")
    metric = next(declared_metric(evaluator, key) for evaluator in evaluation.evaluators if evaluator.choice == name)
    if metric is None or metric.higher_is_better is None:
        if chosen is None:
            log.warning(
                "checkpoint.monitor=%s: it is not known whether higher or lower is better, so best.ckpt will hold the weights of the "
                "largest value; set checkpoint.mode=min or checkpoint.mode=max",
                monitor,
            )
        return chosen or Mode.max
    own = Mode.max if metric.higher_is_better else Mode.min
    if chosen not in (None, own):
        log.warning(
            "checkpoint.mode=%s: best.ckpt will hold the weights of the %s value of checkpoint.monitor=%s, of which %s is better; "
            "leave checkpoint.mode out to keep the best value",
            chosen,
            "largest" if chosen is Mode.max else "smallest",
            monitor,
            "higher" if metric.higher_is_better else "lower",
        )
    return chosen or own
