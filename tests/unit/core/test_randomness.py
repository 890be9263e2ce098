"""Draws named by integers and words: stable, independent, well spread."""

import numpy as np
import pytest

from timix_pl.core.randomness import beta, bits, integer, permutation, seed_of, uniform


def test_the_same_name_gives_the_same_draw_and_every_part_of_it_counts():
    assert seed_of("crop", 1, 2, 3) == seed_of("crop", 1, 2, 3)
    names = [
        ("crop", 1, 2, 3),
        ("crop", 1, 3, 2),
        ("flip", 1, 2, 3),
        ("crop", 1, 2),
        ("crop", 0, 1, 2, 3),
        ("crop", 12, 3),
        ("crop", -1, 2, 3),
    ]
    assert len({seed_of(*name) for name in names}) == len(names)


def splitmix64(state):
    """Steele, Lea and Flood 2014, in Python's integers."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_bits_are_those_of_splitmix64():
    """Fixed for good: a checkpoint of an older version must go on with the order that it began with."""
    assert [f"{word:X}" for word in bits(3)] == ["E220A8397B1DCDAF", "6E789E6AA1B965F4", "6C45D188009454F"]  # its published values for 0
    for name in [("crop", 1, 2, 3), ("a", -1), (2**63,)]:
        generator = splitmix64(seed_of(*name))
        assert bits(5, *name).tolist() == [next(generator) for _ in range(5)]
    assert seed_of("crop", 1, 2, 3) == 3312537491166084363


def test_seeds_of_a_million_names_do_not_collide():
    assert len(np.unique(bits(1_000_000, "many"))) == 1_000_000
    assert len({seed_of(a, b) for a in range(200) for b in range(200)}) == 40_000


def test_fewer_draws_are_the_beginning_of_more():
    for draw in (uniform, bits, lambda count, *ids: beta(count, 0.4, *ids), lambda count, *ids: beta(count, 2.0, *ids)):
        assert draw(100, "x", 5)[:33].tolist() == draw(33, "x", 5).tolist()
    assert bits(100, "x", 5)[33:].tolist() == bits(67, "x", 5, start=33).tolist()


def test_uniform_is_uniform_and_neighbouring_names_are_unrelated():
    draws = np.stack([uniform(1000, "x", name) for name in range(100)])
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert np.abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_permutation_is_one(count):
    assert sorted(permutation(count, "p", 0)) == list(range(count))


def test_all_permutations_are_equally_likely():
    counts: dict[tuple[int, ...], int] = {}
    for name in range(6000):
        order = tuple(permutation(3, "p", name).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and all(abs(count - 1000) < 150 for count in counts.values())


def test_integer_holds_both_ends():
    assert {integer(3, 6, "i", name) for name in range(200)} == {3, 4, 5, 6}
    assert integer(5, 5, "i") == 5


def test_negative_and_large_seeds_work():
    for seed in (-1, 2**63, 2**70):
        assert 0 <= seed_of("x", seed) < 2**64
        assert len(beta(3, 1.0, "x", seed)) == 3
