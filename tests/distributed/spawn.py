"""Functions run on several gloo processes."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_on_ranks(function, world_size, *args):
    """``function(*args)`` in ``world_size`` spawned processes of one group; their results, in rank order."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_one_rank, (world_size, folder, function, args), nprocs=world_size)
        return [torch.load(Path(folder) / f"result-{rank}", weights_only=False) for rank in range(world_size)]


def _one_rank(rank, world_size, folder, function, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(function(*args), Path(folder) / f"result-{rank}")
    finally:
        dist.destroy_process_group()
