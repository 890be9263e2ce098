from itertools import pairwise

import pytest
import torch

from timix_pl.core.errors import DataError
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.data.sets.training_sample import TrainingSample
from timix_pl.data.shards.reader import BadSampleError


class Numbers:
    """Item n is called n; those in ``bad`` cannot be read, those in ``mute`` have no caption."""

    key = "numbers"

    def __init__(self, size, bad=(), mute=()):
        self.size, self.bad, self.mute = size, set(bad), set(mute)

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        if number in self.bad:
            raise BadSampleError("broken")
        return EvaluationItem(number, torch.zeros(3, 1, 1), () if number in self.mute else ("a",), (), {})


def keys(sample):
    return [sample[number].key for number in range(len(sample))]


@pytest.mark.parametrize(("size", "asked"), [(5, 9), (300, 300), (300, 299), (1000, 300), (10_000_019, 2048)])
def test_distinct_samples_in_blocks_from_the_first_to_the_last(size, asked):
    sample = TrainingSample(Numbers(size), asked)
    found = keys(sample)
    assert len(found) == min(size, asked) == len(set(found))
    assert found == sorted(found) and found[0] == 0 and found[-1] == size - 1
    breaks = sum(b != a + 1 for a, b in pairwise(found))
    assert breaks <= -(-len(found) // 128) - 1


def test_what_cannot_be_used_gives_way_to_another_always_the_same():
    first, second = (keys(TrainingSample(Numbers(4000, bad={7}, mute={9}), 256)) for _ in range(2))
    assert first == second
    assert first[6] == 6 and first[8] == 8 and not {7, 9} & set(first) and len(set(first)) == 256


def test_where_nothing_can_be_used_it_says_where():
    with pytest.raises(DataError, match=r"numbers: 100 samples around number 0"):
        TrainingSample(Numbers(50, bad=range(50)), 10)[0]
