"""``launcher.*``: where a run's processes are started."""

from dataclasses import dataclass
from enum import StrEnum

from timix_pl.config.facts import When, option
from timix_pl.config.rules import COUNT, NOT_NEGATIVE, POSITIVE, Range

LauncherKind = StrEnum("LauncherKind", ["local", "torchrun", "slurm"])

TORCHRUN = [When("launcher.kind", LauncherKind.torchrun)]
SLURM = [When("launcher.kind", LauncherKind.slurm)]


@dataclass
class LauncherConfig:
    """Where a run's processes are started (``launcher=``)."""

    kind: LauncherKind = option(
        LauncherKind.local, "local: this machine; torchrun: this node's processes, under torchrun's agent; slurm: submit to SLURM."
    )
    rdzv_endpoint: str | None = option(None, "torchrun on several nodes: HOST:PORT of node 0, the same on every node.", used=TORCHRUN)
    node_rank: int = option(0, "torchrun on several nodes: number of this node, from 0.", within=NOT_NEGATIVE, used=TORCHRUN)
    partition: str | None = option(None, "slurm: partition; null: the cluster's default.", used=SLURM)
    account: str | None = option(None, "slurm: account.", used=SLURM)
    qos: str | None = option(None, "slurm: quality of service.", used=SLURM)
    time_min: int = option(240, "slurm: time limit, in minutes. A run that needs longer is requeued and resumes.", within=COUNT, used=SLURM)
    gpus_per_node: int | None = option(
        None, "slurm: GPUs per node; null: trainer.devices, or none with trainer.accelerator=cpu.", within=NOT_NEGATIVE, used=SLURM
    )
    cpus_per_task: int | None = option(None, "slurm: CPU cores per rank; each loader process needs one.", within=COUNT, used=SLURM)
    mem_gb: float | None = option(None, "slurm: memory per node, in GB.", within=POSITIVE, used=SLURM)
    signal_s: int = option(
        120,
        "slurm: seconds before the time limit at which the run saves a checkpoint and is requeued.",
        within=Range(1, 65535),
        used=SLURM,
    )
    max_requeues: int = option(
        100, "slurm: a job that has been restarted this often is not requeued again.", within=NOT_NEGATIVE, used=SLURM
    )
    max_parallel: int | None = option(
        None, "slurm: jobs of a sweep that run at the same time; null: as many as the cluster allows.", within=COUNT, used=SLURM
    )
    setup: list[str] = option([], "slurm: shell commands to run before training, e.g. 'module load cuda'.", used=SLURM)
    sbatch: list[str] = option([], "slurm: further options for sbatch, e.g. --constraint=a100 or --exclusive.", used=SLURM)
    wait: bool = option(False, "slurm: wait until the job ends; false: submit and return.", used=SLURM)
