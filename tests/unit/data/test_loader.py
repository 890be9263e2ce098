"""Loader processes live as long as the process that they load for needs them, and no longer."""

import multiprocessing
import subprocess
import sys

import pytest
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.data.loader import Loader

PROGRAM = """
import os, signal, sys, time
from torch.utils.data import Dataset
from timix_pl.data.loader import Loader

class Items(Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, number):
        time.sleep({seconds}[number == 3])
        return number

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    items = iter(Loader(Items(), num_workers=2))
    seen = [next(items), next(items)]  # both workers are there
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.killpg(0, number)
    seen += [next(items) for _ in range({count} - 2)]
    print(*seen)
"""


def run(seconds: tuple[float, float], count: int) -> str:
    """What a process prints that takes ``count`` items; item 3 takes the second number of seconds, the others the first."""
    program = PROGRAM.format(seconds=seconds, count=count)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, start_new_session=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_signals_to_the_whole_group_do_not_take_its_batches_away() -> None:
    assert run((0.1, 0.1), 12) == "0 1 2 3 4 5 6 7 8 9 10 11\n"


def test_a_worker_that_hangs_does_not_keep_the_process_from_ending() -> None:
    assert run((0.0, 1000.0), 3) == "0 1 2\n"


class Failing(Dataset):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, number: int) -> int:
        raise DataError("no such shard")


def test_workers_end_with_an_error_whose_traceback_is_kept() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError, match="no such shard") as caught:
        list(Loader(Failing(), num_workers=2))
    assert caught.tb is not None and set(multiprocessing.active_children()) <= before
