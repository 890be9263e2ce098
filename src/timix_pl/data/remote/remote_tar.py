"""Tars in object stores and on web servers, read whole through a local cache, or in ranges.

A tar is known by its URL, its size and its version (the ETag, or the digest in ``manifest.json``). The cache keeps all of a tar in one
folder, which is named by a hash of these three, so a tar that has changed is fetched again. The processes of a machine share the cache. A
lock per tar lets one of them fetch it. Another lock guards the bound of the whole cache.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import obstore
from obstore.exceptions import NotSupportedError

from timix_pl.core.errors import DataError
from timix_pl.core.files import atomic_path
from timix_pl.data.remote.cache import drop_oldest, folder_of, locked_file
from timix_pl.data.remote.prefetch import exiting, in_parallel
from timix_pl.data.remote.transport import ShortBodyError, get_optional, locate, retried
from timix_pl.data.shards.index import INDEX_SUFFIX, ShardFacts, ShardIndex, index_shard, read_index_file, scan_shard
from timix_pl.data.shards.local_tar import FileReader
from timix_pl.data.shards.manifest import MANIFEST_NAME, Manifest
from timix_pl.data.shards.tar import MemberReader
from timix_pl.data.shards.tar_scan import HEADER_BYTES, BrokenTarError, is_header_of

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MAX_GAP_BYTES = 1 << 16
"""Between members of a sample that are read in one request."""

CHANGED = "The shards have changed. Start again, and make their manifest again if they have one."
"""Advice for messages."""
_STALE_INDEX = f"Make the indexes and {MANIFEST_NAME} again with 'timix-data index' where the tars are local, and upload them."


@dataclass(frozen=True)
class RemoteAccess:
    """How remote tars are read.

    Args:
        cache_dir: where whole tars and indexes are kept.
        max_bytes: bound on the tars that are kept there. The least recently opened are removed first.
        whole: fetch whole tars into the cache. If False, each sample is read in a range request.
    """

    cache_dir: Path = Path("data/shards")
    max_bytes: int = 50_000_000_000
    whole: bool = True


@dataclass(frozen=True)
class RemoteTar:
    """A tar at a URL; see :class:`timix_pl.data.shards.tar.Tar`. It reads its own members in ranges, where ``access`` says so.

    Args:
        key: the configuration key that named it, for messages.
        num_bytes, version: tell it from what the URL held at other times.
        etag: what its store must answer with. None takes that of the first answer.
        num_samples, digest: what ``manifest.json`` says; None where there is none.
    Raises:
        DataError: from every method: the source refuses, fails in all tries, or the tar has another size or version than it had.
    """

    parallel: ClassVar[bool] = True

    url: str
    key: str
    access: RemoteAccess
    num_bytes: int
    version: str
    etag: str | None = None
    num_samples: int | None = None
    digest: str | None = None
    _first_etag: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The file name."""
        return self.url.rpartition("/")[2]

    @property
    def location(self) -> str:
        """The URL."""
        return self.url

    @property
    def cache_share(self) -> float:
        """The share of the cache that it takes; 0 where it is read in ranges."""
        return self.num_bytes / self.access.max_bytes if self.access.whole else 0.0

    @property
    def local(self) -> Path:
        """Where the cache keeps it once it is fetched."""
        return folder_of(self.access.cache_dir, self.url, self.num_bytes, self.version) / self.name

    def facts(self) -> ShardFacts:
        """What it holds, from the manifest or from its index."""
        if self.num_samples is not None and self.digest is not None:
            return ShardFacts(self.num_samples, self.num_bytes, 0, 0, self.digest)
        index = self.index()
        return ShardFacts(len(index), self.num_bytes, 0, len(index.problems), index.digest)

    def index(self) -> ShardIndex:
        """The index beside it, or one that is made here from the whole tar. It is kept in the cache."""
        index = self._kept_index()
        if index is None:
            with self._locked():
                index = self._kept_index()
                if index is None:
                    index = self._fetch_index()
        if self.digest not in (None, index.digest):
            raise DataError(f"{self.key}: {self.url}: its index is not the one that {MANIFEST_NAME} lists. {CHANGED}")
        return index

    def reader(self) -> MemberReader:
        """Opens the tar for reads at any offset. A tar that is read whole is fetched."""
        return FileReader(self) if self.access.whole else self

    def open_file(self) -> int:
        """Fetches the whole tar, and returns a file descriptor. It stays readable when the cache drops the file."""
        try:
            descriptor = os.open(self.local, os.O_RDONLY)
        except FileNotFoundError:
            with self._locked():
                self._fetch()
                descriptor = os.open(self.local, os.O_RDONLY)
        os.utime(descriptor)
        return descriptor

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``, in one request."""
        if size == 0:
            return b""

        def get() -> bytes:
            got = obstore.get(*locate(self.url), options={"range": (offset, offset + size)})
            self._check(got.meta)
            data = bytes(got.bytes())
            if len(data) != size:
                raise ShortBodyError(f"{len(data)} of {size} bytes came")
            return data

        try:
            return retried(get, self.url, self.key)
        except NotSupportedError:
            raise DataError(f"{self.key}: {self.url}: this server cannot send ranges. Set `whole=True`.") from None

    def read_members(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The members of the sample ``key`` at these (offset, size), in one request where they lie close together.

        The headers before them are read too, and must name the sample.
        """
        start, end = min(offset for offset, _ in spans), max(offset + size for offset, size in spans)
        if len(spans) > 1 and end - start > sum(size for _, size in spans) + _MAX_GAP_BYTES:
            return [self.read_members(key, [span])[0] for span in spans]
        start -= HEADER_BYTES
        block = self.read(end - start, start)
        for offset, size in spans:
            if not is_header_of(block[offset - start - HEADER_BYTES : offset - start], key, size):
                raise DataError(f"{self.key}: {self.url}: at byte {offset} there is no such member of {key}. {_STALE_INDEX}")
        return [block[offset - start : offset - start + size] for offset, size in spans]

    def read_beside(self, name: str) -> bytes:
        """The content of a file in the same folder."""
        url = f"{self.url.rpartition('/')[0]}/{name}"
        content = get_optional(url, self.key)
        if content is None:
            raise FileNotFoundError(f"there is no {url}")
        return content

    def prefetch(self) -> None:
        """Fetch what reading needs, in one try, unless another process does. Errors are only logged: reading meets them again."""
        try:
            if not self._index_path.is_file():
                self.index()
            if self.access.whole and not self.local.is_file():
                with self._locked(wait=False):
                    self._fetch(pauses_s=())
        except (DataError, BlockingIOError) as error:
            log.debug("%s is not fetched ahead: %s", self.url, error)

    @property
    def _index_path(self) -> Path:
        return self.local.with_name(self.name + INDEX_SUFFIX)

    @property
    def _part_path(self) -> Path:
        return self.local.with_name(self.name + ".part")

    @contextmanager
    def _locked(self, wait: bool = True) -> Iterator[None]:
        with locked_file(self.local.with_name("lock"), wait):
            yield

    def _kept_index(self) -> ShardIndex | None:
        """The index in the cache, or None where there is none that fits. Another program or an older version may have left a file there."""
        if not self._index_path.is_file():
            return None
        try:
            return self._read_index(self._index_path)
        except DataError as error:
            log.debug("%s: its index in the cache is not used: %s", self.url, error)
            return None

    def _read_index(self, path: Path) -> ShardIndex:
        index, num_bytes = read_index_file(path)
        if num_bytes != self.num_bytes:
            raise DataError(f"the tar has {self.num_bytes} bytes, and had {num_bytes} when it was indexed")
        return index

    def _scan(self, path: Path) -> ShardIndex:
        with self._named():
            return scan_shard(path, accept_truncated=True)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors about a broken tar name its URL, not its place in the cache."""
        try:
            yield
        except BrokenTarError as error:
            raise DataError(
                f"{self.key}: {self.url}: {error.reason}. Upload it again, whole and uncompressed, or leave it out. To use its whole part, "
                "run 'timix-data index --accept-truncated' where the tars are local, and upload the indexes."
            ) from error

    def _fetch_index(self) -> ShardIndex:
        """Fetch the index into the cache, or make it there. The lock must be held."""
        content = get_optional(self.url + INDEX_SUFFIX, self.key, denied_is_absent=True)
        if content is not None:
            try:
                with atomic_path(self._index_path) as temporary:
                    temporary.write_bytes(content)
                    index = self._read_index(temporary)
                    if self.local.is_file() and self._scan(self.local).digest != index.digest:
                        raise DataError("the tar in the cache is another")
                return index
            except DataError as error:
                log.debug("%s.index.npz is not used: %s", self.url, error)
        self._fetch()
        with self._named():
            return index_shard(self.local)

    def _fetch(self, pauses_s: Sequence[float] | None = None) -> None:
        """Fetch the whole tar into the cache, unless it is there. The lock must be held."""
        if self.local.is_file():
            return
        try:
            self._part_path.unlink(missing_ok=True)
            self._reserve()
            with self._part_path.open("r+b") as file:
                self._download(file, pauses_s)
                file.flush()
                os.fsync(file.fileno())
            self._take_over()
        except OSError as error:
            raise DataError(
                f"`cache_dir={self.access.cache_dir}`: {self.url} cannot be kept there ({error}). "
                "Free space, lower `max_bytes`, or name another folder."
            ) from error
        finally:
            self._part_path.unlink(missing_ok=True)

    def _take_over(self) -> None:
        """Take the download into the cache if it fits its manifest or index. Tars are padded, so another tar may have the same size."""
        kept = self._kept_index()
        listed = self.digest if self.digest is not None else kept.digest if kept is not None else None
        fits = listed is None or self._scan(self._part_path).digest == listed
        if not fits and self.digest is not None:
            raise DataError(f"{self.key}: {self.url}: this is not the shard that {MANIFEST_NAME} lists. {_STALE_INDEX}")
        os.replace(self._part_path, self.local)
        if not fits:
            self._index_path.unlink()  # the next start makes one
            raise DataError(f"{self.key}: {self.url}: its index is of another tar. {_STALE_INDEX}")

    def _download(self, file: Any, pauses_s: Sequence[float] | None) -> None:
        farthest = done = 0

        def get_the_rest() -> None:
            nonlocal done, farthest
            try:
                got = obstore.get(*locate(self.url), options={"range": {"offset": done}} if done else None)
            except NotSupportedError:
                done = 0
                raise ShortBodyError("the body was cut off, and the server cannot send only the rest") from None
            self._check(got.meta)
            file.seek(done)
            for chunk in got.stream(_CHUNK_BYTES):
                if exiting.is_set():
                    raise DataError(f"{self.url}: given up at exit")
                file.write(chunk)
                done += len(chunk)
                farthest = max(farthest, done)
            if done > self.num_bytes:
                raise DataError(f"{self.key}: {self.url}: {done} bytes came, and it has {self.num_bytes}. Ask the server's operators.")
            if done != self.num_bytes:
                raise ShortBodyError(f"{done} of {self.num_bytes} bytes came")

        retried(get_the_rest, self.url, self.key, lambda: farthest, pauses_s)

    def _check(self, meta: Any) -> None:
        if meta["size"] != self.num_bytes:
            raise DataError(f"{self.key}: {self.url} has {meta['size']} bytes, and had {self.num_bytes} when it was listed. {CHANGED}")
        etag = meta["e_tag"]
        if etag is None:
            return
        if not self._first_etag:
            self._first_etag.append(self.etag or etag)
        if etag != self._first_etag[0]:
            raise DataError(f"{self.key}: {self.url} has been replaced since the run started. {CHANGED}")

    def _reserve(self) -> None:
        """Wait until the cache has room for the tar, and take that room with an empty file of its size."""
        access = self.access
        if self.num_bytes > access.max_bytes:
            raise DataError(
                f"`max_bytes`: the cache may hold {access.max_bytes / 1e9:g} GB, and {self.url} has {self.num_bytes / 1e9:.3g} GB. "
                "Raise it, or set `whole=False`."
            )
        while True:
            with locked_file(access.cache_dir / "lock"):
                if drop_oldest(access.cache_dir, access.max_bytes - self.num_bytes):
                    with self._part_path.open("wb") as file:
                        file.truncate(self.num_bytes)
                    return
            time.sleep(0.1)


class RemoteTars(tuple[RemoteTar, ...]):
    """Remote tars in order."""

    __slots__ = ()

    def manifest(self) -> Manifest:
        """What the tars hold.

        Raises:
            DataError: no sample in any tar, a broken tar, or a source that cannot be reached.
        """
        return Manifest.of(self, in_parallel(RemoteTar.facts, self))
