"""Train a model with a checked configuration, or resume the training."""

import atexit
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from timix_pl.building.assemble import Assembled, assemble
from timix_pl.building.evaluators import built_in_metric
from timix_pl.building.keys import RUN
from timix_pl.building.loggers import open_loggers
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, ConfigError, LostRankError, StoppedBySignal, in_keys
from timix_pl.core.launched import launched
from timix_pl.core.metric import descriptions_in
from timix_pl.core.types import EvaluationResult
from timix_pl.core.words import counted
from timix_pl.data.datamodule import StepDataModule
from timix_pl.reports.page import write_report
from timix_pl.runs.evaluate import forget_evaluations
from timix_pl.runs.run_dir import claimed, step_of, write_config
from timix_pl.training.signals import StopSignals, silence_lightning

log = logging.getLogger(__name__)


HEARD_S = 15
"""Seconds that a rank which lost the connection to another waits, so that the one that failed first reports its error."""


KILLED_S = 0.5
"""Seconds until the exit status of a killed process is available."""


def train(cfg: RootConfig) -> EvaluationResult:
    """Train, or resume training, in ``cfg.run_dir``. Writes checkpoints, metrics, pictures and ``report.html`` there.

    Returns:
        The last evaluation; without metrics if nothing was evaluated.
    Raises:
        TimixError: an error that the user can fix: data, model, run directory, a non-finite loss.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: with status 75: another signal stopped the run.
    """
    match_launcher(cfg)
    with StopSignals(alone=_is_alone(cfg)) as signals, claimed(cfg) as checkpoint:
        return _train(cfg, checkpoint, signals)


def match_launcher(cfg: RootConfig) -> None:
    """If torchrun or srun started this process, take the numbers of machines and processes from there.

    Raises:
        ConfigError: the configuration sets other numbers, or several machines although no launcher starts processes on the others.
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
        raise ConfigError(
            [f"{started.by} started {started.num_ranks} processes on {started.num_nodes} machines; start the same number on each"]
        )
    found = []
    if trainer.devices not in (None, devices):
        found.append(f"trainer.devices={trainer.devices}: {started.by} started {devices} on each machine; set it to {devices} or null")
    if trainer.num_nodes not in (1, started.num_nodes):
        found.append(f"trainer.num_nodes={trainer.num_nodes}: {started.by} uses {started.num_nodes} machines; remove the option")
    if found:
        raise ConfigError(found)
    trainer.devices, trainer.num_nodes = devices, started.num_nodes


def _is_alone(cfg: RootConfig) -> bool:
    """Whether the run has only one process."""
    devices = cfg.trainer.devices or (torch.cuda.device_count() if cfg.trainer.accelerator != "cpu" else 1)
    return max(devices, 1) * cfg.trainer.num_nodes == 1


def _train(cfg: RootConfig, checkpoint: Path | None, signals: StopSignals) -> EvaluationResult:
    run_dir, run = Path(cfg.run_dir), assemble(cfg, checkpoint, told_to_stop=lambda: signals.heard != 0)
    if run.trainer.is_global_zero:
        _announce(cfg, run.data, checkpoint)
        write_config(cfg)
        if checkpoint is None:
            forget_evaluations(run_dir)
    with open_loggers(cfg, step_of(checkpoint) if checkpoint else 0) as run.trainer.loggers:
        _fit(run, checkpoint, signals)
    if run.trainer.is_global_zero:
        write_report(run_dir, built_in_metric)
    return _last_evaluation(run_dir)


@in_keys(RUN)
def _fit(run: Assembled, checkpoint: Path | None, signals: StopSignals) -> None:
    trainer = run.trainer
    silence_lightning(trainer)
    signals.training = True
    try:
        trainer.fit(run.module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    except StoppedBySignal as stopped:
        if trainer.is_global_zero:
            log.warning("stopped after step %d; the same command resumes there", stopped.step)
        if _the_status_is_of_rank_0(trainer):
            sys.exit(0)
        if signals.heard == signal.SIGINT:
            raise KeyboardInterrupt from stopped
        sys.exit(STATUS_OF_A_STOPPED_RUN)
    except SystemExit as error:  # Lightning turns KeyboardInterrupt into this
        raise KeyboardInterrupt from error
    except Exception as error:
        if trainer.world_size > 1:
            _leave_the_word_to_the_first(trainer, error)
        raise
    signals.training = False


def _announce(cfg: RootConfig, data: StepDataModule, checkpoint: Path | None) -> None:
    """Log the length of the run, and from where it starts."""
    num_pairs, size = data.pairs.num_samples, cfg.data.global_batch_size
    thing = TASKS[cfg.task].sample
    things = f"{thing}s"
    epochs = f", {data.max_steps * size / num_pairs:.3g} epochs of {num_pairs} {things}" if num_pairs else ""
    log.info("%s of %d %s%s, in %s", counted(data.max_steps, "step"), size, things, epochs, cfg.run_dir)
    if num_pairs and num_pairs < size:
        log.warning("data.global_batch_size=%d: there are only %d training %s, so that a step repeats some", size, num_pairs, things)
    if checkpoint is not None and step_of(checkpoint) >= data.max_steps:
        log.info("already finished, at %s; raise trainer.max_steps to continue", checkpoint)
    elif checkpoint is not None:
        log.info("resuming from %s", checkpoint)


def _the_status_is_of_rank_0(trainer: Trainer) -> bool:
    """Whether only rank 0's exit status counts. Then this rank must end with 0, or the launcher would kill the others."""
    started = launched()
    return not trainer.is_global_zero and (started is None or started.by == "srun")


def _leave_the_word_to_the_first(trainer: Trainer, error: Exception) -> None:
    """After an error on one of several ranks: end all, and let only the rank that failed first report why.

    Raises:
        LostRankError: the error is the lost connection to another rank.
        SystemExit: the same, in a process that Lightning started.
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
            name, why = signal.Signals(-status).name, ", often because memory ran out" if status == -signal.SIGKILL else ""
            raise LostRankError(
                f"rank {number} was ended by {name}{why}; the same command resumes from the last checkpoint", 128 - status
            ) from error
    raise LostRankError("another rank has ended; its error is shown here or in its own log") from error


def _end(processes: list[subprocess.Popen[bytes]], patience_s: float) -> None:
    """Wait for the processes, then kill the rest: ranks may hang in a collective with one that has ended."""
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
    return EvaluationResult(content["metrics"], content["chance"], descriptions=descriptions_in(content, built_in_metric))
