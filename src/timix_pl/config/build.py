"""What the commands do with a checked configuration: train, evaluate, or show what would be built."""

import atexit
import copy
import json
import logging
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from timix_pl.config.compose import recompose
from timix_pl.config.cost import describe_cost
from timix_pl.config.evaluated import Evaluated, about_evaluations, cluster_environment, forget_evaluations, joined_ranks
from timix_pl.config.evaluators import build_evaluators
from timix_pl.config.fine_tuning import build_fine_tuning, build_task_model, describe_fine_tuning, find_checkpoint
from timix_pl.config.init import run_dir_of
from timix_pl.config.loggers import open_loggers, plain
from timix_pl.config.parts import (
    build_data,
    build_mixing,
    build_model,
    build_objective,
    build_strategy,
    check_batches,
    check_mixing_happens,
    check_model,
    device_peak_flops,
    evaluation_set,
    lightning_precision,
    num_devices,
    on_gpu,
    prepare_data,
    save_memory_and_time,
)
from timix_pl.config.run_dir import claimed, run_name, step_of, write_config
from timix_pl.config.schema import RootConfig, Task
from timix_pl.config.validate import teaches_pta
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, ConfigError, LostRankError, StoppedBySignal
from timix_pl.core.launched import launched
from timix_pl.core.types import EvaluationResult
from timix_pl.data.datamodule import StepDataModule
from timix_pl.evaluation.tasks import EvaluationError, run_tasks
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.reports.page import write_report
from timix_pl.training.callbacks.audit import AuditCallback
from timix_pl.training.callbacks.bad_samples import BadSamplesCallback
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.callbacks.pictures import PicturesCallback
from timix_pl.training.callbacks.profile import ProfileCallback
from timix_pl.training.callbacks.progress import StepProgressBar
from timix_pl.training.callbacks.summary import SummaryCallback
from timix_pl.training.callbacks.throughput import ThroughputCallback
from timix_pl.training.checkpoint_io import AtomicCheckpointIO
from timix_pl.training.fine_tuning import FineTuneModule
from timix_pl.training.module import PretrainModule
from timix_pl.training.signals import StopSignals, silence_lightning
from timix_pl.training.step_cost import StepFlops, count_flops
from timix_pl.training.step_module import OptimSettings, StepModule

HEARD_S = 15
"""How long a rank that lost another one leaves it the word."""
KILLED_S = 0.5
"""How long a killed process may take to be known as such."""

log = logging.getLogger(__name__)


def train(cfg: RootConfig) -> EvaluationResult:
    """Train, or go on training, in ``cfg.run_dir``; leave checkpoints, metrics, pictures and ``report.html`` there.

    Returns:
        The last evaluation; no metrics where nothing was evaluated.
    Raises:
        TimixError: what the user can mend: data, model, run directory, a non-finite loss.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: with status 75, where another signal stopped the run.
    """
    match_launcher(cfg)
    with StopSignals(alone=_is_alone(cfg)) as signals, claimed(cfg) as checkpoint:
        return _train(cfg, checkpoint, signals)


def match_launcher(cfg: RootConfig) -> None:
    """Where torchrun or srun started this process beside others, take the numbers of machines and processes from them.

    Raises:
        ConfigError: the configuration names other numbers, or several machines of which nobody starts the others.
    """
    trainer, started = cfg.trainer, launched()
    if started is None:
        if trainer.num_nodes > 1:
            raise ConfigError(
                [
                    f"trainer.num_nodes={trainer.num_nodes}, launcher.kind=local: only this machine's processes would be started; "
                    "set launcher=torchrun on each machine or launcher=slurm, or start it with torchrun or srun"
                ]
            )
        return
    devices, uneven = divmod(started.num_ranks, started.num_nodes)
    if uneven:
        raise ConfigError([f"{started.by} started {started.num_ranks} processes on {started.num_nodes} machines; start as many on each"])
    found = []
    if trainer.devices not in (None, devices):
        found.append(f"trainer.devices={trainer.devices}: {started.by} started {devices} on each machine; set it to that, or to null")
    if trainer.num_nodes not in (1, started.num_nodes):
        found.append(f"trainer.num_nodes={trainer.num_nodes}: {started.by} uses {started.num_nodes} machines; leave it out")
    if found:
        raise ConfigError(found)
    trainer.devices, trainer.num_nodes = devices, started.num_nodes


def _is_alone(cfg: RootConfig) -> bool:
    """Whether the run has one process, as far as is known before anything is built."""
    devices = cfg.trainer.devices or (torch.cuda.device_count() if cfg.trainer.accelerator != "cpu" else 1)
    return max(devices, 1) * cfg.trainer.num_nodes == 1


def _train(cfg: RootConfig, checkpoint: Path | None, signals: StopSignals) -> EvaluationResult:
    run_dir = Path(cfg.run_dir)
    prepared = copy.deepcopy(cfg)
    prepare_data(prepared)
    if cfg.trainer.num_threads is not None:
        torch.set_num_threads(cfg.trainer.num_threads)
    torch.manual_seed(cfg.seed)
    module, data = _build_module(cfg, prepared, checkpoint, lambda: signals.heard != 0)
    check_mixing_happens(cfg, data.max_steps)
    trainer = _build_trainer(prepared, module.model, data, run_dir)
    save_memory_and_time(cfg, module.model)
    check_batches(cfg, trainer.world_size)
    check_model(cfg, module.model, trainer.world_size)
    if trainer.is_global_zero:
        _announce(cfg, data, checkpoint)
        write_config(cfg)
        if checkpoint is None:
            forget_evaluations(run_dir)
    with open_loggers(cfg, step_of(checkpoint) if checkpoint else 0) as trainer.loggers:
        _fit(trainer, module, data, checkpoint, signals)
    if trainer.is_global_zero:
        write_report(run_dir)
    return _last_evaluation(run_dir)


def _build_module(
    cfg: RootConfig, prepared: RootConfig, checkpoint: Path | None, told_to_stop: Callable[[], bool]
) -> tuple[StepModule, StepDataModule]:
    """What the task trains, and its data."""
    options = {
        "global_batch_size": cfg.data.global_batch_size,
        "seed": cfg.seed,
        "non_finite": cfg.trainer.non_finite,
        "log_every_n_steps": cfg.trainer.log_every_n_steps,
        "micro_batch_size": cfg.trainer.micro_batch_size,
        "told_to_stop": told_to_stop,
    }
    optim = OptimSettings(**OmegaConf.to_container(OmegaConf.structured(cfg.optim), enum_to_str=True))  # type: ignore[arg-type]
    if cfg.task is Task.pretrain:
        encoder = build_model(cfg)
        data: StepDataModule = build_data(prepared, encoder)
        planned = data.max_steps * cfg.data.global_batch_size
        return PretrainModule(encoder, build_objective(cfg), optim, planned_samples=planned, **options), data
    model, data, facts = build_fine_tuning(prepared, checkpoint)
    planned = data.max_steps * cfg.data.global_batch_size
    return FineTuneModule(model, optim, lr_scale=cfg.tune.lr_scale, facts=facts, planned_samples=planned, **options), data


def _fit(trainer: Trainer, module: StepModule, data: StepDataModule, checkpoint: Path | None, signals: StopSignals) -> None:
    silence_lightning(trainer)
    signals.training = True
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except StoppedBySignal as stopped:
        if trainer.is_global_zero:
            log.warning("stopped after step %d; the same command goes on from there", stopped.step)
        if _the_status_is_of_rank_0(trainer):
            sys.exit(0)
        if signals.heard == signal.SIGINT:
            raise KeyboardInterrupt from stopped
        sys.exit(STATUS_OF_A_STOPPED_RUN)
    except SystemExit as error:  # what Lightning makes of KeyboardInterrupt
        raise KeyboardInterrupt from error
    except Exception as error:
        if trainer.world_size > 1:
            _leave_the_word_to_the_first(trainer, error)
        raise
    signals.training = False


def _announce(cfg: RootConfig, data: StepDataModule, checkpoint: Path | None) -> None:
    """What is about to happen."""
    num_pairs, size = data.pairs.num_samples, cfg.data.global_batch_size
    things, thing = ("pairs", "a pair") if cfg.task is Task.pretrain else ("images", "an image")
    epochs = f", {data.max_steps * size / num_pairs:.3g} epochs of {num_pairs} {things}" if num_pairs else ""
    log.info("%d steps of %d %s%s, in %s", data.max_steps, size, things, epochs, cfg.run_dir)
    if num_pairs and num_pairs < size:
        log.warning(
            "data.global_batch_size=%d: the %d training %s are fewer, so that a step holds %s several times", size, num_pairs, things, thing
        )
    if checkpoint is not None and step_of(checkpoint) >= data.max_steps:
        log.info("finished already, at %s; raise trainer.max_steps to train on", checkpoint)
    elif checkpoint is not None:
        log.info("going on from %s", checkpoint)


def _the_status_is_of_rank_0(trainer: Trainer) -> bool:
    """Whether this rank was started, by Lightning or srun, beside a rank 0 whose status counts; its own would have the rest killed."""
    started = launched()
    return not trainer.is_global_zero and (started is None or started.by == "srun")


def _leave_the_word_to_the_first(trainer: Trainer, error: Exception) -> None:
    """After an error of one of several ranks: all end, and only the one that failed first tells why.

    Raises:
        LostRankError: the error is that another rank is gone.
        SystemExit: likewise, in a process that Lightning started.
    """
    lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
    children = getattr(trainer.strategy.launcher, "procs", [])
    if children:
        atexit.register(_end, children, HEARD_S if lost else 1)
    if not lost:
        return
    if launched() is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(HEARD_S)  # the launcher ends this process meanwhile
    elif not children:
        sys.exit(0)
    time.sleep(KILLED_S)
    for number, child in enumerate(children, 1):
        if (status := child.poll() or 0) < 0:
            name, why = signal.Signals(-status).name, ", often for want of memory" if status == -signal.SIGKILL else ""
            raise LostRankError(
                f"rank {number} was ended by {name}{why}; the run goes on from its last checkpoint", 128 - status
            ) from error
    raise LostRankError("another rank is gone; it tells why, here or in its own log") from error


def _end(processes: list[subprocess.Popen[bytes]], patience_s: float) -> None:
    """Ranks may hang in an exchange with one that is gone."""
    until = time.monotonic() + patience_s
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()


def _last_evaluation(run_dir: Path) -> EvaluationResult:
    path = run_dir / "evaluation.json"
    if not path.exists():
        return EvaluationResult({}, {})
    content = json.loads(path.read_text())
    return EvaluationResult(content["metrics"], content["chance"])


def dry_run(cfg: RootConfig) -> str:
    """Build on the meta device; of the data, at most the manifests are read.

    Returns:
        The configuration, and what a run costs: parameters, FLOPs, memory and time.
    Raises:
        TimixError: the model cannot be built, the windows do not fit its grid, or a manifest is damaged.
    """
    encoder = build_model(cfg, device="meta")
    if cfg.task is Task.pretrain:
        cost = describe_cost(cfg, encoder, build_mixing(cfg, encoder.patch_grid))
    else:
        cost = describe_fine_tuning(cfg, encoder)
    return f"{OmegaConf.to_yaml(OmegaConf.structured(cfg))}\n{cost}"


def evaluate(checkpoint: Path, overrides: Sequence[str] = ()) -> Evaluated:
    """Evaluate a checkpoint with its run's configuration, on all ranks that were started together.

    Args:
        checkpoint: a run directory (its newest checkpoint is taken), or a checkpoint inside one.
        overrides: of the run's configuration, as on the command line.
    Raises:
        RunError: there is no checkpoint.
    """
    cfg, path = read_run(checkpoint, overrides)
    prepare_data(cfg)
    model, step = build_task_model(cfg, path)
    problems: dict[str, str] = {}
    with joined_ranks(cfg, path) as device:
        evaluators = build_evaluators(cfg, model, problems)
        if not evaluators and not problems:
            tasks = ", ".join(cfg.evaluation.tasks) or "nothing"
            raise ConfigError(
                [f"evaluation.tasks: {tasks} was asked for, and nothing of it can run here; set what is missing, or ask for others"]
            )
        try:
            result = run_tasks(evaluators, model.to(device), device)
        except EvaluationError as raised:
            result, problems = raised.result, problems | raised.problems
    error = EvaluationError(problems, result) if problems else None
    done = [evaluator for evaluator in evaluators if evaluator.name not in problems]
    return Evaluated(path.parent.parent, path, step, about_evaluations(done, cfg, overrides), result, error)


def read_run(checkpoint: Path, overrides: Sequence[str] = ()) -> tuple[RootConfig, Path]:
    """The configuration of a run, and the checkpoint: that named, or of a run directory the newest that is whole.

    Raises:
        RunError: there is no configuration or no checkpoint.
        ConfigError: wrong overrides.
    """
    return recompose(run_dir_of(checkpoint) / "config.yaml", overrides), find_checkpoint(checkpoint)


def _build_trainer(cfg: RootConfig, model: AnyModel, data: StepDataModule, run_dir: Path) -> Trainer:
    gpu = on_gpu(cfg)
    if gpu and not torch.cuda.is_available():
        raise ConfigError([f"trainer.accelerator={cfg.trainer.accelerator}: there is no GPU here; set trainer.accelerator=cpu, or auto"])
    mixing = build_mixing(cfg, model.patch_grid)
    peak_flops = device_peak_flops(cfg)
    flops = _step_flops(cfg, model, mixing) if peak_flops and isinstance(model, DualEncoder) else None
    evaluation = EvaluationCallback(build_evaluators(cfg, model), every_n_steps=cfg.evaluation.every_n_steps, folder=run_dir)
    audit = AuditCallback(
        run_dir,
        global_batch_size=cfg.data.global_batch_size,
        region_batch_size=cfg.pta.batch_size,
        region_every_n_steps=cfg.pta.every_n_steps,
    )
    regions_per_step = cfg.pta.batch_size / cfg.pta.every_n_steps if teaches_pta(cfg) else 0
    callbacks = [
        *([mixing] if mixing else []),
        ThroughputCallback(peak_flops, flops) if flops else ThroughputCallback(),
        BadSamplesCallback(
            run_dir / "quarantine.jsonl", max_bad_frac=cfg.data.max_bad_frac, samples_per_step=cfg.data.global_batch_size + regions_per_step
        ),
        *([audit] if cfg.data.audit else []),
        evaluation,
        *([_pictures(cfg, model, mixing, run_dir)] if isinstance(model, DualEncoder) else []),
        CheckpointsCallback(
            run_dir / "checkpoints",
            every_n_steps=cfg.checkpoint.every_n_steps,
            every_n_minutes=cfg.checkpoint.every_n_minutes,
            keep_last=cfg.checkpoint.keep_last,
            evaluation=evaluation,
            monitor=_monitor(cfg, evaluation),
            mode=cfg.checkpoint.mode,
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
    for of_no_use_here in (
        "dataloader is not resumable",
        "does not have many workers",
        "command is available on your system but is not used",  # srun
        "smaller than the logging interval",
        "treespec, LeafSpec",
        "returned a view tensor",
        "in eval mode at the start of training",  # frozen towers
    ):
        warnings.filterwarnings("ignore", f".*{of_no_use_here}.*")
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


def _pictures(cfg: RootConfig, model: DualEncoder, mixing: MixingCallback | None, run_dir: Path) -> PicturesCallback:
    return PicturesCallback(
        run_dir / "pictures",
        mixing=mixing,
        grounding=evaluation_set(cfg, "grounding", model) if cfg.pta.enabled else None,
        num_mixed=cfg.pictures.num_mixed,
        num_heat_maps=cfg.pictures.num_heat_maps,
        phrase_template=cfg.data.phrase_template,
    )


def _step_flops(cfg: RootConfig, model: DualEncoder, mixing: MixingCallback | None) -> StepFlops | None:
    try:
        return count_flops(model, mixing.mixer if mixing else None, cfg.mixing.compute)
    except Exception as error:  # a tower may do on shapes alone what PyTorch cannot; that is no reason not to train it
        log.warning("train/mfu is left out: the FLOPs of %s cannot be counted (%s)", cfg.model.architecture, error)
        return None


def _monitor(cfg: RootConfig, evaluation: EvaluationCallback) -> str | None:
    monitor, names = cfg.checkpoint.monitor, [evaluator.name for evaluator in evaluation.evaluators]
    if monitor is None or monitor.split("/")[0] in names:
        return monitor
    log.warning("checkpoint.monitor=%s is not evaluated (%s), so there will be no best.ckpt", monitor, ", ".join(names) or "nothing is")
    return None
