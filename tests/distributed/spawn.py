"""Functions run on several gloo processes."""

import faulthandler
import os
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch.utilities import rank_zero_only

from tests.fork_server import forget_fork_server, start_fork_server
from timix_pl.core.processes import end_with_parent


def run_on_ranks(function, world_size, *args):
    """``function(*args)`` in ``world_size`` new processes of one group; their results, in rank order.

    What fails carries the ranks' last words as notes: a process that aborts tells why only on its standard error.
    """
    start_fork_server()
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.start_processes(_one_rank, (world_size, folder, function, args), nprocs=world_size, start_method="forkserver")
        except Exception as error:
            for rank in range(world_size):
                error.add_note(f"rank {rank} said: {_last_words(Path(folder) / f'output-{rank}')}")
            raise
        return [torch.load(Path(folder) / f"result-{rank}", weights_only=False) for rank in range(world_size)]


def _one_rank(rank, world_size, folder, function, args):
    output = os.open(Path(folder) / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    end_with_parent()
    forget_fork_server()
    torch.set_num_threads(1)
    _tell_lightning(rank, world_size)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(function(*args), Path(folder) / f"result-{rank}")
    except Exception:
        traceback.print_exc()  # torch tells the error of one rank, which may be that the other one, whose error came first, is gone
        raise
    finally:
        dist.destroy_process_group()


def _tell_lightning(rank, world_size):
    """What torchrun would tell it before it is imported."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in names.items()} | {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1"})
    rank_zero_only.rank = rank


def _last_words(output):
    if not output.exists():
        return "nothing, it did not start"
    said, _, _ = output.read_text(errors="replace").partition("\nExtension modules: ")  # a list of all that is imported
    return said[-4000:]
