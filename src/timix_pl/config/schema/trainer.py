"""``trainer.*``, ``checkpoint.*``, ``logger.*`` and ``pictures.*``: the loop, and what a run leaves."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.option import TakenBy, Unless, When, option
from timix_pl.config.rules import COUNT, NOT_NEGATIVE, POSITIVE
from timix_pl.core.choices import CALLBACKS, LOGGERS

NonFinite = StrEnum("NonFinite", ["stop", "skip"])
Precision = StrEnum("Precision", ["auto", "fp32", "bf16_mixed", "bf16_pure"])
Accelerator = StrEnum("Accelerator", ["auto", "cpu", "gpu"])
Strategy = StrEnum("Strategy", ["ddp", "fsdp"])
Mode = StrEnum("Mode", ["min", "max"])

SHARDED = [When("trainer.strategy", Strategy.fsdp)]


@dataclass
class TrainerConfig:
    """The loop."""

    max_steps: int | None = option(None, "Optimizer steps of the whole run.", within=COUNT, frequent=True)
    max_epochs: float | None = option(
        None, "Passes over the training pairs, in place of max_steps; fractions are allowed.", within=POSITIVE, frequent=True
    )
    accelerator: Accelerator = option(Accelerator.auto, "auto, cpu or gpu.", in_evaluation=True)
    devices: int | None = option(None, "Processes on this machine; null: all GPUs, or one CPU process.", within=COUNT)
    num_nodes: int = option(1, "Machines.", within=COUNT)
    strategy: Strategy = option(
        Strategy.ddp,
        "Several processes: ddp, each with a copy of the model; fsdp, weights, gradients and optimizer state in shards (FSDP2).",
    )
    cpu_offload: bool = option(False, "strategy=fsdp: keep weights and optimizer state in CPU memory.", used=SHARDED)
    micro_batch_size: int | None = option(
        None,
        "Pairs (images) that a rank takes through the model at once: its batch is cut into chunks of this size, with the same gradients. "
        "null: the whole batch.",
        within=COUNT,
    )
    precision: Precision = option(Precision.auto, "auto: bf16_mixed on GPUs that compute in it, else fp32.")
    log_every_n_steps: int = option(10, "Write a row of metrics.csv every n steps.", within=COUNT)
    non_finite: NonFinite = option(NonFinite.stop, "A non-finite loss or gradient: stop the run, or skip the step and count it.")
    progress_bar: bool = option(True, "Show a progress bar.")
    gradient_checkpointing: bool = option(
        False, "Recompute each transformer block in the backward pass: less memory, one more forward pass."
    )
    compile: bool = option(False, "Compile each transformer block with torch.compile; needs a C++ compiler.")
    num_threads: int | None = option(None, "CPU threads per process; null: PyTorch's choice.", within=COUNT)
    peak_tflops: float | None = option(
        None,
        "TFLOP/s of one device at best, in the precision used, for MFU and dry_run; null: known for some GPUs.",
        within=POSITIVE,
    )
    callbacks: list[str] = option([], "Further callbacks, from plugins.", registry=CALLBACKS)
    options: dict[str, Any] = option({}, "Options of further callbacks: trainer.options.CALLBACK.NAME=VALUE.")


@dataclass
class CheckpointConfig:
    """Checkpoints."""

    every_n_steps: int | None = option(1000, "Save every n steps; null: not by steps.", within=COUNT)
    every_n_minutes: float | None = option(30.0, "Save every m minutes; null: not by time.", within=POSITIVE)
    sharded: bool = option(
        True, "strategy=fsdp: a checkpoint is a folder that all ranks write; false: one file, put together on rank 0.", used=SHARDED
    )
    keep_last: int = option(2, "Step and time checkpoints that are kept.", within=COUNT)
    monitor: str | None = option("retrieval/mean_recall", "Metric whose best value is kept as best.ckpt; null: none.")
    mode: Mode | None = option(
        None,
        "Which value of checkpoint.monitor is the best: the largest (max) or the smallest (min); null: what the metric itself says.",
        used=[Unless("checkpoint.monitor", None)],
    )


@dataclass
class PicturesConfig:
    """Pictures in the report."""

    num_mixed: int = option(8, "Mixed pairs shown in the report; 0: none.", within=NOT_NEGATIVE)
    num_heat_maps: int = option(8, "Heat maps over evaluation images shown in the report; 0: none.", within=NOT_NEGATIVE)


@dataclass
class LoggerConfig:
    """Where metrics go."""

    kind: str = option("csv", "Where metrics go; metrics.csv is always written too.", registry=LOGGERS)
    options: dict[str, Any] = option({}, "Options of a plugin's logger: logger.options.NAME=VALUE.")
    project: str = option("timix-pl", "wandb project.", used=[TakenBy(LOGGERS)])
    offline: bool = option(True, "wandb: write locally; upload with 'wandb sync'.", used=[TakenBy(LOGGERS)])
    label: str | None = option(
        None, "wandb: the run's name there; null: name, or in a sweep what the job overrides.", used=[TakenBy(LOGGERS)]
    )
    group: str | None = option(
        None,
        "wandb: the group that runs are shown in; null: none, or the folder above run_dir if there is a label.",
        used=[TakenBy(LOGGERS)],
    )
