"""Random numbers as pure functions, without generator state. They are the same on every rank, machine and version.

Every function takes ``ids``: integers and words that identify the draw, such as ``("crop", seed, epoch, sample)``. SplitMix64 (Steele, Lea
and Flood 2014) turns them into bits.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in _ROUNDS:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def seed_of(*ids: int | str) -> int:
    """A 64-bit seed for the draw that ``ids`` identify."""
    state = 0
    for value in ids:
        word = zlib.crc32(value.encode()) if isinstance(value, str) else int(value) & _MASK
        state = ((state + _STEP) & _MASK) ^ word
        for shift, factor in _ROUNDS:
            state = ((state ^ (state >> shift)) * factor) & _MASK
        state ^= state >> 31
    return state


def bits(count: int, *ids: int | str, start: int = 0) -> NDArray[np.uint64]:
    """``count`` independent 64-bit words: numbers ``start`` to ``start + count - 1`` of the draw's sequence."""
    steps = np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(_STEP)
    return _mix(np.uint64(seed_of(*ids)) + steps)


def uniform(count: int, *ids: int | str) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1)."""
    return (bits(count, *ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(count: int, *ids: int | str) -> NDArray[np.int64]:
    """A permutation of ``range(count)``."""
    return np.argsort(bits(count, *ids), kind="stable")


def integer(low: int, high: int, *ids: int | str) -> int:
    """One integer between ``low`` and ``high``, both included."""
    return low + int(uniform(1, *ids)[0] * (high - low + 1))


def beta(count: int, concentration: float, *ids: int | str) -> NDArray[np.float64]:
    """``count`` draws from Beta(concentration, concentration)."""
    return np.random.RandomState(seed_of(*ids) & 0xFFFFFFFF).beta(concentration, concentration, count)
