"""The training order: an endless sequence of samples. It is a pure function of (sizes, seed), whatever the number of ranks and workers.

Position p of the sequence belongs to global batch p // G. Epochs follow one another without a gap: a batch may hold the end of one and the
start of the next. No sample is dropped, and no batch is padded.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timix_pl.core.errors import ConfigError
from timix_pl.core.randomness import permutation

_BLEND_BLOCK = 4096
_MAX_BLOCK = 65_536


class SourceOrder:
    """The endless order of one source: in each epoch shards are permuted, then samples inside windows of a few shards.

    A shard of more than 65,536 samples is cut into blocks of that many, which are permuted like shards, so that every window is small.

    Args:
        shard_sizes: samples in each shard.
        seed: the run's seed.
        name: sources with the same seed and another name have another order.
        window_shards: shards whose samples are shuffled together. Only the samples of one window are in memory.
    """

    def __init__(self, shard_sizes: Sequence[int] | NDArray[np.int64], *, seed: int, name: str, window_shards: int):
        self.num_shards = len(shard_sizes)
        self.sizes, self._shard_of = _blocks(np.asarray(shard_sizes, np.int64))
        self.starts = np.concatenate(([0], np.cumsum(self.sizes)))
        self.num_samples = int(self.starts[-1])
        self._seed, self._name, self._window_shards = seed, name, window_shards
        self._shards = _Recent(self._shards_of_epoch)
        self._window = _Recent(self._samples_of_window)

    def locate(self, start: int, stop: int) -> NDArray[np.int64]:
        """Positions ``start`` to ``stop`` as rows of (epoch, sample); samples count through the shards in their given order."""
        rows = []
        while start < stop:
            epoch, offset = divmod(start, self.num_samples)
            first_of_window = self._shards(epoch)[1]
            window = int(np.searchsorted(first_of_window, offset, side="right")) - 1
            samples = self._window(epoch, window)[offset - first_of_window[window] :][: stop - start]
            rows.append(np.stack((np.full(len(samples), epoch), samples), 1))
            start += len(samples)
        return np.concatenate(rows) if rows else np.empty((0, 2), np.int64)

    def shards_from(self, start: int) -> list[int]:
        """The shards of the window that position ``start`` lies in, then those of the window after it."""
        epoch, offset = divmod(start, self.num_samples)
        shards, first_of_window = self._shards(epoch)
        window = int(np.searchsorted(first_of_window, offset, side="right")) - 1
        found = shards[window * self._window_shards : (window + 2) * self._window_shards]
        if (window + 1) * self._window_shards >= len(shards):
            found = np.concatenate((found, self._shards(epoch + 1)[0][: self._window_shards]))
        return list(dict.fromkeys(self._shard_of[found].tolist()))

    def _shards_of_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The epoch's shard order, and the position within the epoch at which each window starts."""
        order = permutation(len(self.sizes), "shards", self._name, self._seed, epoch)
        ends = np.cumsum(self.sizes[order])
        return order, np.concatenate(([0], ends[self._window_shards - 1 :: self._window_shards]))

    def _samples_of_window(self, epoch: int, window: int) -> NDArray[np.int64]:
        shards = self._shards(epoch)[0][window * self._window_shards : (window + 1) * self._window_shards]
        samples = np.concatenate([np.arange(self.starts[shard], self.starts[shard + 1]) for shard in shards])
        return samples[permutation(len(samples), "samples", self._name, self._seed, epoch, window)]


def _blocks(shard_sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The size and the shard of each block. A large shard has whole blocks and then the rest; a small or empty shard is one block."""
    num_blocks = np.maximum(-(-shard_sizes // _MAX_BLOCK), 1)
    sizes = np.full(num_blocks.sum(), _MAX_BLOCK)
    sizes[np.cumsum(num_blocks) - 1] = shard_sizes - (num_blocks - 1) * _MAX_BLOCK
    return sizes, np.repeat(np.arange(len(shard_sizes)), num_blocks)


class BlendedOrder:
    """The endless order of several sources. Each source has its share of the positions, and fills them in its own order.

    Every block of 4,096 positions holds each source's share, to the nearest sample. Its positions are dealt to the sources at random.

    Args:
        sources: the orders to blend.
        weights: positive; only their proportions matter.
    Raises:
        ConfigError: a weight so small against the others that a block would hold none of its samples.
    """

    def __init__(self, sources: Sequence[SourceOrder], weights: Sequence[float], *, seed: int):
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        if (shares * _BLEND_BLOCK < 2).any():
            smallest = float(np.min(weights))
            raise ConfigError(
                [f"a source's weight of {smallest:g} is less than {2 / _BLEND_BLOCK:.2%} of all; give it a larger weight or leave it out"]
            )
        self.sources, self._seed = list(sources), seed
        self._bounds = np.concatenate(([0.0], np.cumsum(shares)))
        self._bounds[-1] = 1.0
        self._bases = np.concatenate(([0], np.cumsum([source.num_samples for source in sources])))
        self._block = _Recent(self._sources_of_block)

    @property
    def num_samples(self) -> int:
        """Samples in all sources. So many positions count as one epoch of the blend."""
        return int(self._bases[-1])

    def locate(self, start: int, stop: int) -> NDArray[np.int64]:
        """Positions ``start`` to ``stop`` as rows of (the source's epoch, sample); samples count through all sources in order."""
        if len(self.sources) == 1:
            return self.sources[0].locate(start, stop)
        rows = []
        while start < stop:
            block, offset = divmod(start, _BLEND_BLOCK)
            chosen, before = self._block(block)
            chosen_here = chosen[offset : offset + stop - start]
            found = np.empty((len(chosen_here), 2), np.int64)
            for number, source in enumerate(self.sources):
                here = chosen_here == number
                first = int(before[number]) + int((chosen[:offset] == number).sum())
                found[here] = source.locate(first, first + int(here.sum())) + np.array([0, self._bases[number]])
            rows.append(found)
            start += len(chosen_here)
        return np.concatenate(rows) if rows else np.empty((0, 2), np.int64)

    def shards_from(self, start: int) -> list[int]:
        """The shards that each source reads from there on, as in :meth:`SourceOrder.shards_from`. They are numbered through all sources."""
        block, offset = divmod(start, _BLEND_BLOCK)
        chosen, before = self._block(block)
        found, base = [], 0
        for number, source in enumerate(self.sources):
            first = int(before[number]) + int((chosen[:offset] == number).sum())
            found += [base + shard for shard in source.shards_from(first)]
            base += source.num_shards
        return found

    def _sources_of_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each position's source, and how many samples of each source came before the block."""
        before, after = (np.diff(np.floor(b * _BLEND_BLOCK * self._bounds)).astype(np.int64) for b in (block, block + 1))
        chosen = np.repeat(np.arange(len(self.sources)), after - before)
        return chosen[permutation(_BLEND_BLOCK, "blend", self._seed, block)], before


class _Recent:
    """A function that keeps its last two results. Another process gets it without them."""

    def __init__(self, function: Callable[..., Any]):
        self._function, self._cached = function, lru_cache(2)(function)

    def __call__(self, *args: int) -> Any:
        return self._cached(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Recent, (self._function,)
