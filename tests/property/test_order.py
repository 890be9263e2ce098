"""The training order: every epoch holds every sample once, and however it is cut, the pieces are the same sequence."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timix_pl.core.errors import ConfigError
from timix_pl.core.randomness import permutation
from timix_pl.data import order as order_module
from timix_pl.data.order import BlendedOrder, SourceOrder

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any)


def source(sizes, seed=0, name="a", window_shards=2):
    return SourceOrder(sizes, seed=seed, name=name, window_shards=window_shards)


@SETTINGS
@given(sizes=SIZES, seed=st.integers(0, 2**40), window_shards=st.integers(1, 12), epoch=st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(sizes, seed, window_shards, epoch):
    order = source(sizes, seed, window_shards=window_shards)
    rows = order.locate(epoch * sum(sizes), (epoch + 1) * sum(sizes))
    assert (rows[:, 0] == epoch).all()
    assert sorted(rows[:, 1]) == list(range(sum(sizes)))


@SETTINGS
@given(sizes=SIZES, window_shards=st.integers(1, 4), start=st.integers(0, 200), lengths=st.lists(st.integers(0, 17), max_size=12))
def test_however_it_is_cut_the_pieces_are_the_sequence(sizes, window_shards, start, lengths):
    whole = source(sizes, window_shards=window_shards).locate(0, start + sum(lengths))
    order = source(sizes, window_shards=window_shards)
    for length in lengths:  # across borders of windows and epochs
        np.testing.assert_array_equal(order.locate(start, start + length), whole[start : start + length])
        start += length


@SETTINGS
@given(
    sizes=SIZES,
    local=st.integers(1, 5),
    ranks=st.sampled_from([1, 2, 3, 4]),
    workers=st.integers(1, 3),
    num_steps=st.integers(1, 12),
)
def test_ranks_and_workers_share_one_sequence(sizes, local, ranks, workers, num_steps):
    """Worker w of rank r reads every ``workers``-th step's share with an object of its own; put together, nothing is lost or repeated."""
    together = np.full((num_steps * local * ranks, 2), -1)
    for rank in range(ranks):
        for worker in range(workers):
            order = source(sizes)
            for step in range(worker, num_steps, workers):
                first = (step * ranks + rank) * local
                together[first : first + local] = order.locate(first, first + local)
    np.testing.assert_array_equal(together, source(sizes).locate(0, len(together)))


@SETTINGS
@given(num_shards=st.integers(1, 9), size=st.integers(1, 6), window_shards=st.integers(1, 4), epoch=st.integers(0, 5))
def test_samples_stay_inside_windows_of_whole_shards(num_shards, size, window_shards, epoch):
    """So that a reader has few files open: shards come in groups of ``window_shards``, one group after another."""
    num_samples = num_shards * size
    shards = source([size] * num_shards, window_shards=window_shards).locate(epoch * num_samples, (epoch + 1) * num_samples)[:, 1] // size
    seen = []
    for start in range(0, num_samples, size * window_shards):
        window = set(shards[start : start + size * window_shards].tolist())
        assert len(window) == min(window_shards, num_shards - len(seen))
        seen += window
    assert sorted(seen) == list(range(num_shards))


def test_samples_of_a_window_are_mixed_and_epochs_seeds_and_names_differ():
    sizes = [50] * 10
    first = source(sizes, window_shards=5).locate(0, 500)[:, 1]
    assert len(set(first[:250] // 50)) == 5 and len(set(first[:20] // 50)) >= 3
    others = [
        source(sizes, window_shards=5).locate(500, 1000)[:, 1],
        source(sizes, seed=1, window_shards=5).locate(0, 500)[:, 1],
        source(sizes, name="b", window_shards=5).locate(0, 500)[:, 1],
    ]
    assert all((first == other).mean() < 0.05 for other in others)


@SETTINGS
@given(
    sizes=st.lists(SIZES, min_size=2, max_size=3),
    weights=st.lists(st.floats(0.05, 10), min_size=3, max_size=3),
    start=st.integers(0, 9000),
    length=st.integers(0, 5000),
)
def test_a_blend_holds_its_weights_and_walks_each_source_in_its_own_order(sizes, weights, start, length):
    weights = weights[: len(sizes)]
    orders = [source(part, name=str(number)) for number, part in enumerate(sizes)]
    blend = BlendedOrder(orders, weights, seed=3)
    assert blend.num_samples == sum(map(sum, sizes))
    whole = blend.locate(0, start + length)
    np.testing.assert_array_equal(BlendedOrder(orders, weights, seed=3).locate(start, start + length), whole[start:])
    bounds = np.cumsum([0, *map(sum, sizes)])
    for number, order in enumerate(orders):
        mine = whole[(bounds[number] <= whole[:, 1]) & (whole[:, 1] < bounds[number + 1])]
        np.testing.assert_array_equal(mine - [0, bounds[number]], order.locate(0, len(mine)))
        num_whole_blocks = len(whole) // 4096
        in_blocks = whole[: num_whole_blocks * 4096, 1]
        share = weights[number] / sum(weights)
        drawn = ((bounds[number] <= in_blocks) & (in_blocks < bounds[number + 1])).sum()
        assert abs(drawn - share * len(in_blocks)) <= 1


def test_sources_are_spread_over_the_blend():
    blend = BlendedOrder([source([100], name="a"), source([100], name="b")], [3, 1], seed=0)
    from_second = (blend.locate(0, 4096)[:, 1] >= 100).reshape(-1, 64).sum(1)
    assert from_second.min() > 16 - 12 and from_second.max() < 16 + 12 and len(set(from_second)) > 5


def test_far_away_positions_are_found_at_once():
    order = source([1000] * 50, window_shards=8)
    assert order.locate(10**12, 10**12 + 3).shape == (3, 2)
    blend = BlendedOrder([order, source([7], name="b")], [9, 1], seed=0)
    assert blend.locate(10**12, 10**12 + 3).shape == (3, 2)


def test_a_weight_too_small_to_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="1e-09"):
        BlendedOrder([source([5], name="a"), source([5], name="b")], [1.0, 1e-9], seed=0)


def blocks_of(sizes, block):
    """Whole blocks of each shard, then what is left; an empty shard is an empty block."""
    return [part for size in sizes for part in [block] * (size // block) + [size % block] * (size % block > 0 or size == 0)]


@SETTINGS
@given(sizes=SIZES, block=st.integers(1, 13), window_shards=st.integers(1, 5), epoch=st.integers(0, 10**6), cut=st.integers(0, 100))
def test_a_large_shard_is_shuffled_as_if_its_blocks_were_shards(sizes, block, window_shards, epoch, cut):
    expected = source(blocks_of(sizes, block), window_shards=window_shards).locate(epoch * sum(sizes), (epoch + 1) * sum(sizes))
    with patch.object(order_module, "_MAX_BLOCK", block):
        order = source(sizes, window_shards=window_shards)
    cut = min(cut, sum(sizes))
    start = epoch * sum(sizes)
    rows = np.concatenate([order.locate(start, start + cut), order.locate(start + cut, start + sum(sizes))])
    np.testing.assert_array_equal(rows, expected)
    assert sorted(rows[:, 1]) == list(range(sum(sizes)))


def test_one_giant_shard_is_shuffled_in_bounded_memory():
    """50 million samples: 400 MB if a window held them all."""
    num_samples = 50_000_000
    tracemalloc.start()
    order = source([num_samples], window_shards=4)
    positions = [0, num_samples // 2, num_samples - 1000]
    found = [order.locate(position, position + 1000)[:, 1] for position in positions]
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak_mb < 50
    for samples in found:
        assert len(set(samples.tolist())) == 1000 and len(set((samples // 65_536).tolist())) >= 3  # of 4 blocks; 3 in the last window
        assert (np.abs(np.diff(samples)) > 1000).mean() > 0.9


@SETTINGS
@given(sizes=SIZES, block=st.integers(1, 13), window_shards=st.integers(1, 5), start=st.integers(0, 200))
def test_the_shards_told_ahead_hold_the_samples_that_come(sizes, block, window_shards, start):
    """Also where a shard is cut into blocks; until the end of the window after the one that ``start`` lies in."""
    with patch.object(order_module, "_MAX_BLOCK", block):
        order = source(sizes, window_shards=window_shards)
    told = order.shards_from(start)
    assert len(told) == len(set(told)) and set(told) <= set(range(len(sizes)))
    told_until = end_of_next_window(blocks_of(sizes, block), window_shards, start)
    samples = order.locate(start, told_until)[:, 1]
    assert len(samples) > 0
    assert set(np.searchsorted(np.cumsum(sizes), samples, side="right").tolist()) <= set(told)


def end_of_next_window(blocks, window_shards, start):
    """Where the window after that of ``start`` ends, by what the order promises: windows of permuted blocks, epoch after epoch."""
    epoch, offset = divmod(start, sum(blocks))
    windows = []
    for number in (epoch, epoch + 1):
        sizes = np.array(blocks)[permutation(len(blocks), "shards", "a", 0, number)]
        windows += [sizes[first : first + window_shards].sum() for first in range(0, len(sizes), window_shards)]
    ends = np.cumsum(windows)
    return epoch * sum(blocks) + int(ends[np.searchsorted(ends, offset, side="right") + 1])
