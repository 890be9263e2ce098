"""The process group of ``timix-evaluate``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from timix_pl.building.devices import cluster_environment
from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.core.distributed import gather_objects
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.launched import launched


@contextmanager
def joined_ranks(cfg: RootConfig, checkpoint: Path) -> Iterator[torch.device]:
    """Form a process group with the ranks that torchrun or srun started together with this one, if any.

    Yields:
        The device of this rank.
    Raises:
        ConfigError: there are more ranks than GPUs.
        RunError: the ranks found different checkpoints.
    """
    gpu = torch.cuda.is_available() and cfg.trainer.accelerator != Accelerator.cpu
    if launched() is None:
        yield torch.device("cuda" if gpu else "cpu")
        return
    environment = cluster_environment()
    device = torch.device("cpu")
    if gpu:
        if environment.local_rank() >= torch.cuda.device_count():
            raise ConfigError(
                [
                    f"trainer.accelerator={cfg.trainer.accelerator}: rank {environment.global_rank()} has no GPU: this machine has only "
                    f"{torch.cuda.device_count()}; start one process per GPU, or set trainer.accelerator=cpu"
                ]
            )
        device = torch.device("cuda", environment.local_rank())
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        init_method=f"tcp://{environment.main_address}:{environment.main_port}",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )
    try:
        if len(found := dict.fromkeys(gather_objects(str(checkpoint)))) > 1:
            raise RunError(
                f"the ranks found different checkpoints, {' and '.join(found)}: a run is writing there; choose one as checkpoint="
            )
        yield device
    finally:
        dist.destroy_process_group()
