"""The resources that a run requests from SLURM."""

from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.core.words import counted


def gpus_per_node(cfg: RootConfig) -> int | None:
    """``launcher.gpus_per_node``; by default one GPU per task, or None with ``trainer.accelerator=cpu``."""
    if cfg.launcher.gpus_per_node is None and cfg.trainer.accelerator is not Accelerator.cpu:
        return cfg.trainer.devices
    return cfg.launcher.gpus_per_node or None


def describe_resources(cfg: RootConfig) -> str:
    """The resources in words, without those that the cluster's defaults decide."""
    launcher, trainer = cfg.launcher, cfg.trainer
    tasks, gpus = trainer.devices, gpus_per_node(cfg)
    nodes = f"{counted(trainer.num_nodes, 'node')}, each with {counted(tasks or 1, 'task')}"
    rest = {
        "time limit": counted(launcher.time_min, "minute"),
        "partition": launcher.partition,
        "account": launcher.account,
        "quality of service": launcher.qos,
        "CPU cores per task": launcher.cpus_per_task,
        "memory per node": None if launcher.mem_gb is None else f"{launcher.mem_gb:g} GB",
        "further": " ".join(launcher.sbatch) or None,
    }
    return (
        f"Requested from SLURM: {nodes}{' and ' + counted(gpus, 'GPU') if gpus else ''}; "
        f"{', '.join(f'{name}: {value}' for name, value in rest.items() if value is not None)}"
    )
