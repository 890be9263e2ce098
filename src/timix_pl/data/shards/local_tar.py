"""Tars on the disks of this machine."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from timix_pl.core.errors import DataError
from timix_pl.data.shards.index import ShardIndex, load_index, load_or_make_facts, size_and_time
from timix_pl.data.shards.manifest import Manifest, ShardTable, read_manifest, save_manifest
from timix_pl.data.shards.tar import Tar

Result = TypeVar("Result")

_THREADS = 16
_LOOKS_PER_TASK = 64
_RETRY_PAUSES_S = (1.0, 5.0)


@dataclass(frozen=True, slots=True)
class LocalTar:
    """A tar at a path; see :class:`timix_pl.data.shards.tar.Tar`. The disk is asked three times before an error is raised."""

    location: str

    @property
    def name(self) -> str:
        """The file name."""
        return os.path.basename(self.location)

    @property
    def cache_share(self) -> None:
        """There is nothing to fetch."""

    def index(self) -> ShardIndex:
        """The index beside it."""
        return _retried(self.location, lambda: load_index(Path(self.location)))

    def reader(self) -> "FileReader":
        """Opens the tar for reads at any offset."""
        return FileReader(self)

    def open_file(self) -> int:
        """Opens the tar, and returns the file descriptor."""
        return os.open(self.location, os.O_RDONLY)

    def read_beside(self, name: str) -> bytes:
        """The content of a file in the same folder."""
        return Path(self.location).with_name(name).read_bytes()

    def prefetch(self) -> None:
        """There is nothing to fetch."""


class FileReader:
    """Reads members of a tar through a file descriptor, which is closed with the object. A read that fails is tried three times."""

    parallel = False

    def __init__(self, tar: Tar):
        self._location = tar.location
        self._descriptor = _retried(tar.location, tar.open_file)

    def read_members(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes at these (offset, size)."""
        return [self._read(size, offset) for offset, size in spans]

    def _read(self, size: int, offset: int) -> bytes:
        data = _retried(self._location, lambda: os.pread(self._descriptor, size, offset))
        if len(data) != size:
            raise DataError(f"{self._location}: {len(data)} of {size} bytes at {offset}; the shard was cut off after it was indexed")
        return data

    def __del__(self):
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class LocalTars:
    """Tars at paths, in columns: about 50 bytes a tar, so that a million tars fit in memory."""

    def __init__(self, paths: Iterable[str | Path]):
        texts = [os.fspath(path) for path in paths]
        ends = [text.rfind(os.sep) + 1 for text in texts]  # several times as fast as os.path.split
        folders: dict[str, int] = {}
        self._folder_of = np.array([folders.setdefault(text[:end], len(folders)) for text, end in zip(texts, ends, strict=True)], np.int32)
        self._folders = list(folders)
        self._names = np.array([os.fsencode(text[end:]) for text, end in zip(texts, ends, strict=True)], np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> LocalTar:
        return LocalTar(self._path(row))

    def __iter__(self) -> Iterator[LocalTar]:
        return map(self.__getitem__, range(len(self)))

    def _path(self, row: int) -> str:
        return self._folders[self._folder_of[row]] + os.fsdecode(self._names[row])

    def manifest(self) -> Manifest:
        """What the tars hold. A tar whose index is missing or out of date is indexed.

        A tar that its folder's ``manifest.json`` lists with the right size and modification time costs only the look at these two.

        Raises:
            DataError: no sample in any tar, or what ``index_shard`` raises.
        """
        table, listed = ShardTable.empty(self._names), np.zeros(len(self), bool)
        for number, folder in enumerate(self._folders):
            if (listing := read_manifest(Path(folder))) is not None and len(listing):
                rows = np.flatnonzero(self._folder_of == number)
                order = np.argsort(listing.names)
                found = order[np.searchsorted(listing.names, self._names[rows], sorter=order).clip(max=len(order) - 1)]
                listed[rows] = listing.names[found] == self._names[rows]
                table.counts[rows], table.digests[rows] = listing.counts[found], listing.digests[found]

        def check(first: int) -> None:
            for row in range(first, min(first + _LOOKS_PER_TASK, len(self))):
                path = self._path(row)
                if not listed[row] or size_and_time(path) != tuple(table.counts[row, 1:3].tolist()):
                    table.set(row, load_or_make_facts(Path(path)))

        with ThreadPoolExecutor(_THREADS) as pool:  # on a network's disk, most of a look is waiting
            list(pool.map(check, range(0, len(self), _LOOKS_PER_TASK)))
        return Manifest(self, table)


def write_manifest(folder: Path) -> Manifest:
    """Write ``manifest.json`` into a folder, from the indexes of its tars. Indexes that are missing are made.

    Raises:
        DataError: the folder has no tars, no tar has a sample, or what ``index_shard`` raises.
    """
    paths = sorted(Path(folder).glob("*.tar"))
    if not paths:
        raise DataError(f"{folder}: no .tar files in this folder.")
    manifest = Manifest.of(LocalTars(paths), map(load_or_make_facts, paths))
    save_manifest(Path(folder), manifest)
    return manifest


def _retried(location: str, act: Callable[[], Result], pauses_s: Sequence[float] = _RETRY_PAUSES_S) -> Result:
    try:
        return act()
    except FileNotFoundError as error:
        raise DataError(f"{location}: the shard is gone; restore it, or start a new run without it") from error
    except OSError as error:
        if not pauses_s:
            raise DataError(f"{location}: three tries to read it failed, the last: {error}. Check the disk and the network") from error
        time.sleep(pauses_s[0])
        return _retried(location, act, pauses_s[1:])
