"""``trainer.*``, ``checkpoint.*``, ``logger.*`` and ``pictures.*``: the training loop, and what a run writes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.facts import AnyOf, TakenBy, Unless, When, option
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
    """The training loop."""

    max_steps: int | None = option(None, "Number of optimizer steps of the whole run.", within=COUNT, frequent=True)
    max_epochs: float | None = option(
        None, "Length of the run in epochs, instead of max_steps; fractions are allowed.", within=POSITIVE, frequent=True
    )
    accelerator: Accelerator = option(Accelerator.auto, "auto: GPUs if there are any, else the CPU.", in_evaluation=True)
    devices: int | None = option(None, "Processes per machine; null: one per GPU, or one on the CPU.", within=COUNT)
    num_nodes: int = option(1, "Number of machines.", within=COUNT)
    strategy: Strategy = option(
        Strategy.ddp,
        "With several processes. ddp: each holds a copy of the model; fsdp: weights, gradients and optimizer state are sharded (FSDP2).",
    )
    cpu_offload: bool = option(False, "strategy=fsdp: keep weights and optimizer state in CPU memory.", used=SHARDED)
    micro_batch_size: int | None = option(
        None,
        "Pairs (or images) per forward pass and rank. The batch of a rank is split into chunks of this size, which saves memory; the "
        "gradients are the same. null: the whole batch at once.",
        within=COUNT,
    )
    precision: Precision = option(Precision.auto, "auto: bf16_mixed on GPUs that support it, else fp32.")
    log_every_n_steps: int = option(10, "Steps between rows of metrics.csv.", within=COUNT)
    non_finite: NonFinite = option(NonFinite.stop, "On a non-finite loss or gradient: stop the run; or skip the step and count it.")
    progress_bar: bool = option(True, "Show a progress bar.")
    gradient_checkpointing: bool = option(
        False, "Recompute each transformer block in the backward pass: saves memory, costs one more forward pass."
    )
    compile: bool = option(False, "Compile each transformer block with torch.compile; needs a C++ compiler.")
    num_threads: int | None = option(None, "CPU threads per process; null: PyTorch's default.", within=COUNT)
    peak_tflops: float | None = option(
        None,
        "Peak TFLOP/s of one device in the precision used, for MFU and dry_run; null: from a table of GPUs.",
        within=POSITIVE,
    )
    callbacks: list[str] = option([], "Further callbacks, from plugins.", registry=CALLBACKS)
    options: dict[str, Any] = option({}, "Options of further callbacks: trainer.options.CALLBACK.NAME=VALUE.")


@dataclass
class CheckpointConfig:
    """Checkpoints."""

    every_n_steps: int | None = option(1000, "Steps between checkpoints; null: do not save by steps.", within=COUNT)
    every_n_minutes: float | None = option(30.0, "Minutes between checkpoints; null: do not save by time.", within=POSITIVE)
    sharded: bool = option(
        True, "strategy=fsdp: a checkpoint is a folder that all ranks write; false: one file, gathered on rank 0.", used=SHARDED
    )
    keep_last: int = option(2, "Number of checkpoints that are kept, besides best.ckpt.", within=COUNT)
    monitor: str | None = option("retrieval/mean_recall", "Keep the weights with the best value of this metric as best.ckpt; null: do not.")
    mode: Mode | None = option(
        None,
        "Whether the largest (max) or the smallest (min) value of checkpoint.monitor is best; null: as the metric declares.",
        used=[Unless("checkpoint.monitor", None)],
    )


@dataclass
class PicturesConfig:
    """Pictures in the report."""

    num_mixed: int = option(
        8,
        "Number of mixed pairs in the report; 0: none.",
        within=NOT_NEGATIVE,
        used=[AnyOf(Unless("mixing.kind", "none"), When("pictures.num_mixed", 0))],
    )
    num_heat_maps: int = option(
        8,
        "Number of heat maps of evaluation images in the report; 0: none.",
        within=NOT_NEGATIVE,
        used=[AnyOf(When("pta.enabled", True), When("pictures.num_heat_maps", 0))],
    )


@dataclass
class LoggerConfig:
    """Where metrics are logged."""

    kind: str = option("csv", "Where metrics are logged; metrics.csv is always written.", registry=LOGGERS)
    options: dict[str, Any] = option({}, "Options that only the chosen logger has: logger.options.NAME=VALUE.")
    project: str = option("timix-pl", "wandb project.", used=[TakenBy(LOGGERS)])
    offline: bool = option(True, "wandb: write locally; upload with 'wandb sync'.", used=[TakenBy(LOGGERS)])
    label: str | None = option(
        None, "wandb: name of the run; null: name, or in a sweep the values that the job sets.", used=[TakenBy(LOGGERS)]
    )
    group: str | None = option(
        None,
        "wandb: group of the run; null: the folder above run_dir if logger.label is set, else none.",
        used=[TakenBy(LOGGERS)],
    )
