"""What a run asks SLURM for."""

from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.core.words import counted


def gpus_per_node(cfg: RootConfig) -> int | None:
    """``launcher.gpus_per_node``, or a GPU for each task; none on CPUs."""
    if cfg.launcher.gpus_per_node is None and cfg.trainer.accelerator is not Accelerator.cpu:
        return cfg.trainer.devices
    return cfg.launcher.gpus_per_node or None


def describe_resources(cfg: RootConfig) -> str:
    """The resources in words; what is left to the cluster's defaults is left out."""
    launcher, trainer = cfg.launcher, cfg.trainer
    tasks, gpus = trainer.devices, gpus_per_node(cfg)
    nodes = f"{counted(trainer.num_nodes, 'node')}, each with {counted(tasks or 1, 'task')}"
    rest = {
        "time limit": counted(launcher.time_min, "minute"),
        "partition": launcher.partition,
        "account": launcher.account,
        "quality of service": launcher.qos,
        "CPU cores of a task": launcher.cpus_per_task,
        "memory of a node": None if launcher.mem_gb is None else f"{launcher.mem_gb:g} GB",
        "further": " ".join(launcher.sbatch) or None,
    }
    return (
        f"SLURM is asked for {nodes}{' and ' + counted(gpus, 'GPU') if gpus else ''}; "
        f"{', '.join(f'{name}: {value}' for name, value in rest.items() if value is not None)}"
    )
