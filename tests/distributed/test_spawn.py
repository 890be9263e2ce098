"""What is told of ranks that fail."""

import os
import signal

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from tests.distributed.spawn import run_on_ranks
from timix_pl.core.distributed import rank


def abort_on_the_last():
    if rank() == 0:
        signal.pause()
    os.write(2, b"this is why\n")
    os.abort()


def raise_on_the_last():
    if rank() == 0:
        signal.pause()
    raise ValueError("this is why")


def test_a_rank_that_aborts_tells_why():
    with pytest.raises(ProcessExitedException, match="process 1 terminated with signal SIGABRT") as ended:
        run_on_ranks(abort_on_the_last, 2)
    of_first, of_second = ended.value.__notes__
    assert of_first == "rank 0 said: "
    assert of_second.startswith("rank 1 said: this is why\nFatal Python error: Aborted") and "in abort_on_the_last" in of_second


def test_an_error_of_a_rank_is_raised_here():
    with pytest.raises(ProcessRaisedException, match="ValueError: this is why") as raised:
        run_on_ranks(raise_on_the_last, 2)
    assert raised.value.__notes__[1].endswith("ValueError: this is why\n")
