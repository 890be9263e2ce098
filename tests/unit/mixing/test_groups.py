"""Who is mixed with whom: group by group, in one cycle, and the same at any world size."""

import pytest

from timix_pl.core.errors import ShapeError
from timix_pl.mixing.groups import mixed_rows


def pairs_of(batch_size, group_size, ratio, *, seed=0, step=0, first=0):
    rows, partners = mixed_rows(batch_size, group_size, ratio, seed=seed, step=step, first=first)
    assert len(rows) == len(partners)
    return list(zip(rows.tolist(), partners.tolist(), strict=True))


@pytest.mark.parametrize(
    ("group_size", "ratio", "expected"), [(32, 1.0, 32), (32, 0.3, 10), (10, 0.3, 3), (7, 0.5, 4), (5, 1.0, 5), (2, 1.0, 2), (32, 0.05, 2)]
)
def test_each_group_mixes_its_share_of_rows_in_one_cycle(group_size, ratio, expected):
    num_groups = 3
    pairs = pairs_of(num_groups * group_size, group_size, ratio, seed=3, step=11)
    for group in range(num_groups):
        inside = range(group * group_size, (group + 1) * group_size)
        partner_of = {row: partner for row, partner in pairs if row in inside}
        assert len(partner_of) == expected
        start = row = min(partner_of)
        visited = []
        while not visited or row != start:  # following the partners leads once through all mixed rows of the group
            visited.append(row)
            row = partner_of[row]
        assert sorted(visited) == sorted(partner_of)
    assert len(pairs) == num_groups * expected


@pytest.mark.parametrize("ratio", [0.0, 0.01])
def test_ratio_zero_mixes_nothing(ratio):
    assert pairs_of(32, 16, ratio) == []


def test_nobody_is_mixed_with_itself():
    assert pairs_of(1, 1, 1.0) == []  # a batch of one
    assert pairs_of(6, 1, 1.0) == []  # groups of one
    assert pairs_of(20, 10, 0.1) == []  # one row per group would be its own partner
    for step in range(50):
        assert all(row != partner for row, partner in pairs_of(12, 3, 0.7, step=step))


def test_a_larger_ratio_mixes_the_same_rows_and_more():
    rows = [{row for row, _ in pairs_of(40, 20, ratio, seed=5, step=2)} for ratio in (0.2, 0.5, 0.9)]
    assert rows[0] < rows[1] < rows[2]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_is_mixed_alike_at_any_world_size(world_size):
    global_batch_size, group_size = 48, 6
    whole = pairs_of(global_batch_size, group_size, 0.7, seed=9, step=4)
    local = global_batch_size // world_size
    parts = []
    for first in range(0, global_batch_size, local):
        parts += [(row + first, partner + first) for row, partner in pairs_of(local, group_size, 0.7, seed=9, step=4, first=first)]
    assert parts == whole


def test_the_order_changes_with_seed_step_and_group():
    one = pairs_of(64, 32, 0.5, seed=1, step=1)
    assert one == pairs_of(64, 32, 0.5, seed=1, step=1)
    assert one != pairs_of(64, 32, 0.5, seed=2, step=1)
    assert one != pairs_of(64, 32, 0.5, seed=1, step=2)
    assert one[:16] != [(row - 32, partner - 32) for row, partner in one[16:]]


def test_over_steps_every_row_is_mixed_equally_often():
    counts = [0] * 8
    for step in range(2000):
        for row, _ in pairs_of(8, 8, 0.25, step=step):
            counts[row] += 1
    assert sum(counts) == 4000
    assert all(abs(count - 500) < 100 for count in counts)  # 5 standard deviations


@pytest.mark.parametrize(("batch_size", "first"), [(10, 0), (3, 0), (12, 6)])
def test_a_group_size_that_does_not_divide_is_refused(batch_size, first):
    with pytest.raises(ShapeError, match=r"`group_size=4`") as error:
        mixed_rows(batch_size, 4, 1.0, seed=0, step=0, first=first)
    assert str(batch_size) in str(error.value)
