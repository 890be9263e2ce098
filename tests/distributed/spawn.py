"""Functions run on several gloo processes."""

import faulthandler
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_on_ranks(function, world_size, *args):
    """``function(*args)`` in ``world_size`` spawned processes of one group; their results, in rank order.

    What fails carries the ranks' last words as notes: a process that aborts tells why on its standard error alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_one_rank, (world_size, folder, function, args), nprocs=world_size)
        except Exception as error:
            for rank in range(world_size):
                said = Path(folder) / f"output-{rank}"
                error.add_note(
                    f"rank {rank} said: {said.read_text(errors='replace')[-4000:] if said.exists() else 'nothing, it did not start'}"
                )
            raise
        return [torch.load(Path(folder) / f"result-{rank}", weights_only=False) for rank in range(world_size)]


def _one_rank(rank, world_size, folder, function, args):
    output = os.open(Path(folder) / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(function(*args), Path(folder) / f"result-{rank}")
    finally:
        dist.destroy_process_group()
