"""Random reads of samples from indexed shards."""

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region, Sample
from timix_pl.data.remote.shard import Prefetcher, RemoteShard, in_parallel
from timix_pl.data.shards.index import IMAGE, JSON, MANIFEST_NAME, TEXT, Manifest, ShardEntry, ShardIndex, Tar, load_index

Result = TypeVar("Result")

_MAX_OPEN_SHARDS = 256
_KINDS = {IMAGE: "image", TEXT: "text", JSON: "JSON"}
_RETRY_PAUSES_S = (1.0, 5.0)
_MAX_LOOKED_AT = 64
_MAX_GAP_BYTES = 1 << 16
"""Between members of a sample that are read in one request."""

Members = tuple[bytes | None, ...]


class BadSampleError(DataError):
    """A sample whose bytes cannot be used; the stream counts it and takes another in its place."""


class ShardReader:
    """The samples of several manifests, counted through in order. Cheap to send to a worker: files are opened on first use.

    Args:
        open_shards: shards that are read by turns; so many stay open, with their indexes, but at most 256.
        max_image_mb: members of more megabytes are not read.
    Raises:
        DataError: a shard is gone or changed since it was indexed.
        BadSampleError: the bytes of a sample cannot be read as what they should be.
    """

    def __init__(self, manifests: Sequence[Manifest], *, open_shards: int = 1, max_image_mb: float = 100.0):
        self._tables = [manifest.shards for manifest in manifests]
        self._starts = np.concatenate(([0], np.cumsum(np.concatenate([table.sizes for table in self._tables]))))
        self._open_shards, self._max_image_mb = min(open_shards, _MAX_OPEN_SHARDS), max_image_mb
        self._open_cached: Any = None
        self._has_remote = any(table.remote for table in self._tables)
        self._prefetcher = Prefetcher()
        self._fetched: dict[int, Members] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(number)
        index, _, row = self._find(number)
        image, text, metadata = self._fetched.pop(number, None) or self._members(number)
        return make_sample(str(index.keys[row]), index.path.name, image or b"", str(index.image_exts[row]), text, metadata)

    def expect(self, numbers: Sequence[int], shards: Callable[[], Sequence[int]]) -> None:
        """Fetch ahead what is remote.

        Args:
            numbers: samples that are read next; those of ranges come together.
            shards: tells which shards these and later samples lie in, the next first.
        """
        if not self._has_remote:
            return
        remote = [path for path in (self._entry(shard).path for shard in shards()) if isinstance(path, RemoteShard)]
        if remote:
            self._prefetcher.fetch(remote)
        in_ranges = [number for number in numbers if isinstance(self._find(number)[1], RemoteShard) and self._is_small(number)]
        self._fetched = dict(zip(in_ranges, in_parallel(self._members, in_ranges), strict=True)) if in_ranges else {}

    def shards_from(self, number: int, count: int) -> range:
        """The shard of a sample, and those after it, ``count`` in all."""
        first = self._shard_of(number)
        return range(first, min(first + count, len(self._starts) - 1))

    def numbers_beside(self, number: int) -> range:
        """The samples of the shard that a sample lies in."""
        shard = self._shard_of(number)
        return range(int(self._starts[shard]), int(self._starts[shard + 1]))

    def name(self, number: int) -> tuple[str, str]:
        """The shard's file name and the key of a sample, whatever its bytes are like."""
        index, _, row = self._find(number)
        return index.path.name, str(index.keys[row])

    def extra(self, number: int) -> dict[str, Any]:
        """The further fields of a sample's JSON, without reading its image.

        Raises:
            BadSampleError: the JSON is not what it should be.
        """
        index, file, row = self._find(number)
        return make_sample("", "", b"", "", None, self._member(file, index, row, JSON)).extra

    def folder(self, number: int) -> str:
        """The folder or URL that a sample's shard lies in."""
        path = self._entry(self._shard_of(number)).path
        return str(path.url if isinstance(path, RemoteShard) else path).rpartition("/")[0]

    def without_image(self, number: int) -> Sample:
        """A sample without its image, which is not read.

        Raises:
            BadSampleError: the text or the JSON is not what it should be.
        """
        index, file, row = self._find(number)
        text, metadata = self._member(file, index, row, TEXT), self._member(file, index, row, JSON)
        return make_sample(str(index.keys[row]), index.path.name, b"", "", text, metadata)

    def some(self) -> list[int]:
        """Samples spread evenly over the set, 64 at most."""
        return np.linspace(0, len(self) - 1, min(len(self), _MAX_LOOKED_AT), dtype=int).tolist()

    def regions(self, number: int) -> tuple[Region, ...]:
        """The regions of a sample, without reading its image; none where its JSON is not what it should be."""
        index, file, row = self._find(number)
        try:
            return make_sample("", "", b"", "", None, self._member(file, index, row, JSON)).regions
        except BadSampleError:
            return ()

    def _shard_of(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def _find(self, number: int) -> tuple[ShardIndex, "_File | RemoteShard", int]:
        shard = self._shard_of(number)
        return *self._opened(shard), number - int(self._starts[shard])

    def _opened(self, shard: int) -> tuple[ShardIndex, "_File | RemoteShard"]:
        if self._open_cached is None:
            self._open_cached = lru_cache(self._open_shards)(self._open)
        return self._open_cached(shard)

    def _open(self, shard: int) -> tuple[ShardIndex, "_File | RemoteShard"]:
        entry = self._entry(shard)
        index, file = _open(entry.path)
        if index.digest != entry.digest:
            message = f"{entry.path}: the shard was changed and indexed again after this run started; start the run again"
            if isinstance(entry.path, Path):
                message += (
                    f". If it says so again, {MANIFEST_NAME} is out of date: write it anew with 'timix-data index {entry.path.parent}'"
                )
            raise DataError(message)
        return index, file

    def _entry(self, shard: int) -> ShardEntry:
        for table in self._tables:
            if shard < len(table):
                return table[shard]
            shard -= len(table)
        raise IndexError(shard)

    def _members(self, number: int) -> Members:
        """Image, text and JSON; from a server in one request, where they lie together."""
        index, file, row = self._find(number)
        kinds = (IMAGE, TEXT, JSON)
        spans = [(int(index.offsets[row, kind]), int(index.sizes[row, kind])) for kind in kinds]
        start, end = min(offset for offset, size in spans if size >= 0), max(offset + size for offset, size in spans if size >= 0)
        num_bytes = sum(size for _, size in spans if size >= 0)
        if isinstance(file, _File) or not self._is_small(number) or end - start > num_bytes + _MAX_GAP_BYTES:
            return tuple(self._member(file, index, row, kind) for kind in kinds)
        found = iter(file.read_members(str(index.keys[row]), [span for span in spans if span[1] >= 0]))
        return tuple(next(found) if size >= 0 else None for _, size in spans)

    def _is_small(self, number: int) -> bool:
        index, _, row = self._find(number)
        return int(index.sizes[row].max()) <= self._max_image_mb * 1e6

    def _member(self, file: "_File | RemoteShard", index: ShardIndex, row: int, kind: int) -> bytes | None:
        size = int(index.sizes[row, kind])
        if size > self._max_image_mb * 1e6:
            raise BadSampleError(f"the {_KINDS[kind]} has {size / 1e6:.1f} MB, more than data.max_image_mb={self._max_image_mb:g}")
        if size < 0:
            return None
        offset = int(index.offsets[row, kind])
        return file.read(size, offset) if isinstance(file, _File) else file.read_members(str(index.keys[row]), [(offset, size)])[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_cached": None, "_fetched": {}}


def _open(tar: Tar) -> tuple[ShardIndex, "_File | RemoteShard"]:
    if isinstance(tar, RemoteShard):
        return tar.index(), _File(tar.url, tar.open) if tar.access.whole else tar
    assert isinstance(tar, Path)
    return _retried(str(tar), lambda: load_index(tar)), _File(str(tar), lambda: os.open(tar, os.O_RDONLY))


class _File:
    """A file descriptor for reads at any offset, closed with the object; a read that fails is tried three times."""

    def __init__(self, path: str, open_it: Callable[[], int]):
        self._path = path
        self._descriptor = _retried(path, open_it)

    def read(self, size: int, offset: int) -> bytes:
        data = _retried(self._path, lambda: os.pread(self._descriptor, size, offset))
        if len(data) != size:
            raise DataError(f"{self._path}: {len(data)} of {size} bytes at {offset}; the shard was cut off after it was indexed")
        return data

    def __del__(self):
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _retried(path: str, act: Callable[[], Result], pauses_s: Sequence[float] = _RETRY_PAUSES_S) -> Result:
    try:
        return act()
    except FileNotFoundError as error:
        raise DataError(f"{path}: the shard is gone; restore it, or start a new run without it") from error
    except OSError as error:
        if not pauses_s:
            raise DataError(f"{path}: three tries to read it failed, the last: {error}; mend the disk or network") from error
        time.sleep(pauses_s[0])
        return _retried(path, act, pauses_s[1:])


def make_sample(key: str, shard: str, image: bytes, image_ext: str, text: bytes | None, metadata: bytes | None) -> Sample:
    """A sample from its members; ``captions`` in the JSON win over the text.

    Raises:
        BadSampleError: the text is not UTF-8, or the JSON is not what it should be.
    """
    fields = _parse_json(metadata) if metadata is not None else {}
    captions, regions = fields.pop("captions", None), fields.pop("regions", None)
    if captions is None:
        captions = [_decode_text(text)] if text is not None else []
    elif isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, list) or not isinstance(regions, list | None):
        raise BadSampleError("'captions' and 'regions' in the JSON must be lists")
    return Sample(
        key=key,
        image=image,
        image_ext=image_ext,
        captions=tuple(caption.strip() for caption in captions if isinstance(caption, str) and caption.strip()),
        regions=tuple(_parse_region(region) for region in regions or ()),
        extra=fields,
        shard=shard,
    )


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSampleError("the caption is not UTF-8 text") from error


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise BadSampleError(f"the JSON cannot be parsed: {error}") from error
    if not isinstance(fields, dict):
        raise BadSampleError("the JSON is not an object")
    return fields


def _parse_region(region: Any) -> Region:
    try:
        phrase, box = region["phrase"], tuple(float(x) for x in region["bbox_xyxy_norm"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadSampleError(f"a region needs 'phrase' and 'bbox_xyxy_norm' of four numbers, but is {region}") from error
    if len(box) != 4 or not isinstance(phrase, str):
        raise BadSampleError(f"a region needs 'phrase' and 'bbox_xyxy_norm' of four numbers, but is {region}")
    return Region(phrase, box)
