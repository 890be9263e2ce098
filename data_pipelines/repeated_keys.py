"""Find keys that occur more than once in a set of shards, in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timix_pl.data.shards.index import load_index

_MAX_HASHES = 1 << 24  # of 40 bytes at the peak of the search


def hash_keys(keys: NDArray[np.str_]) -> NDArray[np.uint64]:
    """A 64-bit hash of each key (FNV-1a over its characters, then mixed). It does not depend on the length of the other keys."""
    hashes = np.full(len(keys), 0xCBF29CE484222325, np.uint64)
    for column in np.ascontiguousarray(keys).view(np.uint32).reshape(len(keys), keys.dtype.itemsize // 4).T:
        hashes = np.where(column != 0, (hashes ^ column) * np.uint64(0x100000001B3), hashes)
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return hashes ^ (hashes >> np.uint64(32))


class RepeatedKeys:
    """Collects the hashes of the shards' keys. Above ``max_hashes`` it samples every second, then every fourth key, and so on.

    Attributes:
        every: one of this many keys is checked.
    """

    def __init__(self, max_hashes: int = _MAX_HASHES):
        self.every, self._max_hashes, self._num_hashes = 1, max_hashes, 0
        self._parts: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Add the keys of the next shard."""
        self._parts.append(hashes[hashes % np.uint64(self.every) == 0])
        self._num_hashes += len(self._parts[-1])
        while self._num_hashes > self._max_hashes:
            self.every *= 2
            self._parts = [part[part % np.uint64(self.every) == 0] for part in self._parts]
            self._num_hashes = sum(map(len, self._parts))

    def find(self, tars: list[Path], limit: int) -> tuple[int, Iterator[str]]:
        """The number of keys that occur more than once, and a line for each of the first ``limit``.

        Args:
            tars: the shards whose keys were added, in that order.
        """
        hashes = np.concatenate(self._parts)
        shards = np.repeat(np.arange(len(self._parts), dtype=np.int32), list(map(len, self._parts)))
        order = np.argsort(hashes, kind="stable")
        hashes, shards = hashes[order], shards[order]
        again = hashes[1:] == hashes[:-1]
        firsts = np.flatnonzero(again & np.concatenate(([True], ~again[:-1])))
        return len(firsts), (_line(tars, hashes[first], shards[first : first + 2].tolist()) for first in firsts[:limit])


def _line(tars: list[Path], hashed: np.uint64, shards: list[int]) -> str:
    keys = load_index(tars[shards[0]]).keys
    key = keys[np.flatnonzero(hash_keys(keys) == hashed)[0]]
    return f"{key}: a key of both {tars[shards[0]].name} and {tars[shards[1]].name}; both samples are used"
