"""Exchanges between ranks are timed, waiting for slower ranks included."""

import time

import torch

from tests.distributed.spawn import run_on_ranks
from timix_pl.core.distributed import EXCHANGES, gather, max_over_ranks, rank, sum_over_ranks

LATE_S = 0.3


def exchange(timed):
    x = torch.ones(2, 3, requires_grad=True)
    gather(x)  # so that the connection stands
    EXCHANGES.on = timed
    seconds = []
    for step in (lambda: gather(x), lambda: sum_over_ranks(x), lambda: torch.autograd.grad(gather(x).sum(), x)):
        sum_over_ranks(x)
        EXCHANGES.take()
        time.sleep(LATE_S * rank())
        step()
        seconds.append(EXCHANGES.take())
    return seconds, max_over_ranks(torch.tensor([rank(), -rank()])).tolist()


def test_each_exchange_counts_until_the_last_rank_has_come():
    (early, largest), (late, _) = run_on_ranks(exchange, 2, True)
    assert all(seconds > 0.6 * LATE_S for seconds in early)
    assert all(0 < one < other for one, other in zip(late, early, strict=True))
    assert largest == [1, 0]


def test_outside_training_nothing_is_counted():
    assert [seconds for seconds, _ in run_on_ranks(exchange, 2, False)] == [[0.0, 0.0, 0.0]] * 2
