"""Reads the samples of indexed shards, in any order."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region, Sample
from timix_pl.data.remote.prefetch import Prefetcher, in_parallel
from timix_pl.data.shards.index import ShardIndex
from timix_pl.data.shards.manifest import MANIFEST_NAME, Manifest
from timix_pl.data.shards.tar import MemberReader, Tar
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT

_MAX_OPEN_SHARDS = 256
_KINDS = {IMAGE: "image", TEXT: "text", JSON: "JSON"}
_MAX_LOOKED_AT = 64

Members = tuple[bytes | None, ...]


class BadSampleError(DataError):
    """A sample whose bytes cannot be used. The stream counts it, and takes another sample in its place."""


@dataclass(frozen=True)
class _OpenShard:
    name: str
    index: ShardIndex
    reader: MemberReader


class ShardReader:
    """The samples of several manifests, numbered in their order. It is cheap to send to a worker: files are opened on first use.

    Args:
        open_shards: how many shards stay open, with their indexes; at most 256. Give as many as are read by turns.
        max_image_mb: members of more megabytes are not read.
    Raises:
        DataError: a shard is gone or changed since it was indexed.
        BadSampleError: the bytes of a sample are not what they should be.
    """

    def __init__(self, manifests: Sequence[Manifest], *, open_shards: int = 1, max_image_mb: float = 100.0):
        self._manifests = list(manifests)
        self._starts = np.concatenate(([0], np.cumsum(np.concatenate([manifest.shards.sizes for manifest in manifests]))))
        self._open_shards, self._max_image_mb = min(open_shards, _MAX_OPEN_SHARDS), max_image_mb
        self._open_cached: Any = None
        self._fetches_ahead = any(manifest.tars[0].cache_share is not None for manifest in manifests)
        self._prefetcher = Prefetcher()
        self._fetched: dict[int, Members] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard, row = self._find(number)
        image, text, metadata = self._fetched.pop(number, None) or self._members(number, IMAGE, TEXT, JSON)
        return make_sample(str(shard.index.keys[row]), shard.name, image or b"", str(shard.index.image_exts[row]), text, metadata)

    def expect(self, numbers: Sequence[int], shards: Callable[[], Sequence[int]]) -> None:
        """Fetch what is remote ahead of need.

        Args:
            numbers: samples that are read next. Those that are read in ranges are fetched at once, at the same time.
            shards: returns the shards of these and later samples, the next one first.
        """
        if not self._fetches_ahead:
            return
        remote = [tar for tar, _ in map(self._tar, shards()) if tar.cache_share is not None]
        if remote:
            self._prefetcher.fetch(remote)
        at_once = [number for number in numbers if self._find(number)[0].reader.parallel and self._is_small(number)]
        members = in_parallel(lambda number: self._members(number, IMAGE, TEXT, JSON), at_once) if at_once else []
        self._fetched = dict(zip(at_once, members, strict=True))

    def shards_from(self, number: int, count: int) -> range:
        """The shard of a sample and the shards after it, ``count`` in all."""
        first = self._shard_of(number)
        return range(first, min(first + count, len(self._starts) - 1))

    def numbers_beside(self, number: int) -> range:
        """The samples of the shard that a sample lies in."""
        shard = self._shard_of(number)
        return range(int(self._starts[shard]), int(self._starts[shard + 1]))

    def name(self, number: int) -> tuple[str, str]:
        """The shard's file name and the key of a sample, whether or not its bytes can be used."""
        shard, row = self._find(number)
        return shard.name, str(shard.index.keys[row])

    def extra(self, number: int) -> dict[str, Any]:
        """The further fields of a sample's JSON. The image is not read.

        Raises:
            BadSampleError: the JSON is not what it should be.
        """
        return make_sample("", "", b"", "", None, *self._members(number, JSON)).extra

    def folder(self, number: int) -> str:
        """The folder or URL that a sample's shard lies in."""
        return _folder(self._tar(self._shard_of(number))[0])

    def without_image(self, number: int) -> Sample:
        """A sample without its image, which is not read.

        Raises:
            BadSampleError: the text or the JSON is not what it should be.
        """
        shard, row = self._find(number)
        return make_sample(str(shard.index.keys[row]), shard.name, b"", "", *self._members(number, TEXT, JSON))

    def some(self) -> list[int]:
        """Samples spread evenly over the set, 64 at most."""
        return np.linspace(0, len(self) - 1, min(len(self), _MAX_LOOKED_AT), dtype=int).tolist()

    def regions(self, number: int) -> tuple[Region, ...]:
        """The regions of a sample; none where its JSON is not what it should be. The image is not read."""
        try:
            return make_sample("", "", b"", "", None, *self._members(number, JSON)).regions
        except BadSampleError:
            return ()

    def _shard_of(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def _find(self, number: int) -> tuple[_OpenShard, int]:
        """The shard of a sample, opened, and the sample's row in its index."""
        if self._open_cached is None:
            self._open_cached = lru_cache(self._open_shards)(self._open)
        shard = self._shard_of(number)
        return self._open_cached(shard), number - int(self._starts[shard])

    def _open(self, shard: int) -> _OpenShard:
        tar, digest = self._tar(shard)
        index, reader = tar.index(), tar.reader()
        if index.digest != digest:
            raise DataError(
                f"{tar.location}: the shard was changed and indexed again after this run started. Start the run again. If you see this "
                f"again, {MANIFEST_NAME} is out of date: write it again with 'timix-data index {_folder(tar)}'."
            )
        return _OpenShard(tar.name, index, reader)

    def _tar(self, shard: int) -> tuple[Tar, str]:
        """The tar of a shard, and the digest of its index by the manifest."""
        for manifest in self._manifests:
            if shard < len(manifest.shards):
                return manifest.tars[shard], manifest.shards.digest(shard)
            shard -= len(manifest.shards)
        raise IndexError(shard)

    def _members(self, number: int, *kinds: int) -> Members:
        """Members of a sample, None for each that it does not have."""
        shard, row = self._find(number)
        offsets, sizes = shard.index.offsets[row].tolist(), shard.index.sizes[row].tolist()
        for kind in kinds:
            if sizes[kind] > self._max_image_mb * 1e6:
                raise BadSampleError(f"the {_KINDS[kind]} has {sizes[kind] / 1e6:.1f} MB, more than `max_image_mb={self._max_image_mb:g}`")
        there = [kind for kind in kinds if sizes[kind] >= 0]
        found = shard.reader.read_members(str(shard.index.keys[row]), [(offsets[kind], sizes[kind]) for kind in there]) if there else []
        return tuple(map(dict(zip(there, found, strict=True)).get, kinds))

    def _is_small(self, number: int) -> bool:
        shard, row = self._find(number)
        return int(shard.index.sizes[row].max()) <= self._max_image_mb * 1e6

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open_cached": None, "_fetched": {}}


def _folder(tar: Tar) -> str:
    return tar.location.rpartition("/")[0]


def make_sample(key: str, shard: str, image: bytes, image_ext: str, text: bytes | None, metadata: bytes | None) -> Sample:
    """A sample from its members. ``captions`` in the JSON replace the text.

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
