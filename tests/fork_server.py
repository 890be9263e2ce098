"""Processes that find PyTorch and all else that takes seconds to import already imported: forks of a server that does nothing else."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import pytest

PRELOADED = ["timix_pl.runs.train", "tests.tiny"]


def start_fork_server() -> None:
    """Start Python's fork server with the libraries imported, unless one runs.

    It has one thread (with OMP_NUM_THREADS=1), no process group and no CUDA context, so its forks can do what new processes can.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Python 3.11 does not tell it
        forkserver.ensure_running()


def run_in_a_fork(function: Callable[..., object], *args: Any) -> int:
    """Call a function in a process of its own. Returns the exit status, -n where signal n ended it."""
    start_fork_server()
    process = multiprocessing.get_context("forkserver").Process(target=_in_the_fork, args=(function, args))
    process.start()
    process.join()
    return process.exitcode


def forget_fork_server() -> None:
    """In a fork: start processes as any other process does. It would start a server of its own."""
    multiprocessing.set_start_method(None, force=True)


def _in_the_fork(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    forget_fork_server()
    function(*args)
