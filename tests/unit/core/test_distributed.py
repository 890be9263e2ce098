"""With one process, exchanges give back what they are given."""

import torch

from timix_pl.core.distributed import gather, gather_objects, rank, sum_over_ranks, world_size


def test_one_process_is_alone():
    x = torch.arange(3.0, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert gather(x) is x
    assert gather_objects({"a": 1}) == [{"a": 1}]
    total = sum_over_ranks(x)
    assert total.tolist() == [0, 1, 2] and not total.requires_grad
    total += 1
    assert x.tolist() == [0, 1, 2]
