"""Indexes of shards: what lies where in each tar, and what a set of tars holds.

The index of ``NAME.tar`` is ``NAME.tar.index.npz`` beside it. It records the tar's size and modification time, and is refused when they
differ. ``manifest.json`` holds what a start needs of all indexes of a folder, so that none has to be opened for it.
"""

import hashlib
import json
import os
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from timix_pl.core.errors import DataError
from timix_pl.core.files import atomic_path
from timix_pl.core.words import counted
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT, scan_tar

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = ".unfinished"
"""Lies in a folder while a ``ShardWriter`` writes to it."""

_FORMAT = 1
_DIGEST_CHARS = 64
_DIGEST = np.dtype(f"S{_DIGEST_CHARS}")
_THREADS = 16
_CHUNK = 1024
_LOOKS_PER_TASK = 64


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the members of each sample lie in a tar.

    ``offsets`` and ``sizes`` are in bytes, int64 of shape [num_samples, 3], with columns ``IMAGE``, ``TEXT`` and ``JSON``; a size of -1
    means that the sample has no such member. ``problems`` says what the scan left out. ``digest`` is a hash of all
    but the path and the problems.
    """

    path: Path
    keys: NDArray[np.str_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    image_exts: NDArray[np.str_]
    problems: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.keys)


class Tar(Protocol):
    """A path, or a :class:`timix_pl.data.remote.shard.RemoteShard`."""

    @property
    def name(self) -> str:
        """Its file name."""


class ShardFacts(NamedTuple):
    """What a manifest says of a tar: its size and modification time when it was indexed, and what the scan found."""

    num_samples: int
    num_bytes: int
    mtime_ns: int
    num_problems: int
    digest: str


class ShardEntry(NamedTuple):
    """One tar of a manifest. ``mtime_ns`` is 0 where it does not matter."""

    path: Tar
    num_samples: int
    num_bytes: int
    mtime_ns: int
    num_problems: int
    digest: str


class ShardTable(Sequence[ShardEntry]):
    """The tars of a manifest, in columns: about 150 bytes a shard, however many samples it holds."""

    def __init__(
        self,
        folders: Sequence[str],
        folder_of: NDArray[np.int32],
        names: NDArray[np.bytes_],
        counts: NDArray[np.int64],
        digests: NDArray[np.bytes_],
    ):
        self._folders, self._folder_of, self._names, self._counts, self._digests = list(folders), folder_of, names, counts, digests
        self.remote: list[Tar] = []
        """The shards themselves where they are no local files; else none."""

    @classmethod
    def of(cls, tars: Iterable[str | Path], facts: Iterable[ShardFacts]) -> Self:
        """A table of tars and what is known of each."""
        table = cls._named(tars)
        for row, fact in enumerate(facts):
            table._set(row, fact)
        return table

    @classmethod
    def _named(cls, tars: Iterable[str | Path]) -> Self:
        folders: dict[str, int] = {}
        paths = [os.fspath(tar) for tar in tars]
        ends = [path.rfind(os.sep) + 1 for path in paths]  # several times as fast as os.path.split
        folder_of = np.array([folders.setdefault(path[:end], len(folders)) for path, end in zip(paths, ends, strict=True)], np.int32)
        names = np.array([os.fsencode(path[end:]) for path, end in zip(paths, ends, strict=True)], np.bytes_)
        return cls(list(folders), folder_of, names, np.zeros((len(paths), 4), np.int64), np.zeros(len(paths), _DIGEST))

    def _set(self, row: int, facts: ShardFacts) -> None:
        self._counts[row], self._digests[row] = facts[:-1], facts.digest.encode()

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, row: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, row: slice) -> list[ShardEntry]: ...
    def __getitem__(self, row: int | slice) -> ShardEntry | list[ShardEntry]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        num_samples, num_bytes, mtime_ns, num_problems = self._counts[row].tolist()
        tar = self.remote[row] if self.remote else Path(self._path(row))
        return ShardEntry(tar, num_samples, num_bytes, mtime_ns, num_problems, self._digests[row].decode())

    def _path(self, row: int) -> str:
        return self._folders[self._folder_of[row]] + self.name(row)

    def name(self, row: int) -> str:
        """The tar's name without its folder."""
        return os.fsdecode(self._names[row])

    def rows(self) -> Iterator[tuple[str, list[int], str]]:
        """(name, ``num_samples`` to ``num_problems``, digest) of each tar; faster than entries."""
        for first in range(0, len(self), _CHUNK):
            part = slice(first, first + _CHUNK)
            names, digests = map(os.fsdecode, self._names[part].tolist()), map(bytes.decode, self._digests[part].tolist())
            yield from zip(names, self._counts[part].tolist(), digests, strict=True)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Samples of each tar."""
        return self._counts[:, 0]

    @property
    def num_bytes(self) -> NDArray[np.int64]:
        """Size of each tar."""
        return self._counts[:, 1]

    @property
    def num_problems(self) -> NDArray[np.int64]:
        """What the scan of each tar left out."""
        return self._counts[:, 3]


class Manifest:
    """A set of tars in order. ``fingerprint`` is a hash of names, counts, sizes and indexes, and stays when the folder is moved.

    Raises:
        DataError: no sample in any tar.
    """

    def __init__(self, shards: ShardTable):
        self.shards, self.num_samples = shards, int(shards.sizes.sum())
        if self.num_samples == 0:
            names = ", ".join(str(shard.path) for shard in shards[:3])
            raise DataError(
                f"No sample with an image in {counted(len(shards), 'shard')} ({names}). Images are members named KEY.jpg, .png or .webp."
            )
        hashed, rows, start = hashlib.sha256(), shards.rows(), "["
        while facts := [[name, counts[0], counts[1], digest] for name, counts, digest in islice(rows, _CHUNK)]:
            hashed.update((start + json.dumps(facts)[1:-1]).encode())
            start = ", "
        hashed.update(b"]")
        self.fingerprint = hashed.hexdigest()


def index_shard(tar: Path, *, accept_truncated: bool = False) -> ShardIndex:
    """Scan a tar and write its index beside it.

    Args:
        accept_truncated: of a tar that was cut off, take the samples before the cut; the rest becomes a problem.
    Raises:
        DataError: the tar is missing, broken or cut off, or the index cannot be written.
    """
    tar = Path(tar)
    state = _state(tar)  # before the scan, so that a tar that is still being written does not pass for a whole one
    index = scan_shard(tar, accept_truncated=accept_truncated)
    header = state | {"num_samples": len(index), "digest": index.digest, "problems": index.problems}
    columns = {"keys": index.keys, "offsets": index.offsets, "sizes": index.sizes, "image_exts": index.image_exts}
    try:
        with atomic_path(_index_path(tar)) as temporary, temporary.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **columns)  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{tar}: its index cannot be written beside it ({error}). Copy the shards to a writable folder.") from error
    return index


def scan_shard(tar: Path, *, accept_truncated: bool = False) -> ShardIndex:
    """The index that a tar should have, from the tar itself. Arguments and errors as in ``index_shard``; nothing is written."""
    samples, problems = scan_tar(tar, accept_truncated=accept_truncated)
    members = [[sample.members.get(kind, (0, -1)) for kind in (IMAGE, TEXT, JSON)] for sample in samples.values()]
    keys = np.array(list(samples), np.str_)
    image_exts = np.array([s.image_ext for s in samples.values()], np.str_)
    offsets, sizes = np.moveaxis(np.array(members, np.int64).reshape(-1, 3, 2), -1, 0).copy()
    digest = hashlib.sha256(json.dumps([keys.tolist(), image_exts.tolist()]).encode() + offsets.tobytes() + sizes.tobytes()).hexdigest()
    return ShardIndex(tar, keys, offsets, sizes, image_exts, tuple(problems), digest)


def load_index(tar: Path) -> ShardIndex:
    """Read the index of a tar.

    Raises:
        DataError: there is none, it is damaged, or the tar has changed since.
        OSError: the disk fails; another try may help.
    """
    tar = Path(tar)
    header, (keys, offsets, sizes, image_exts) = _read_index(tar, "keys", "offsets", "sizes", "image_exts")
    return ShardIndex(tar, keys, offsets, sizes, image_exts, tuple(header["problems"]), header["digest"])


def load_facts(tar: Path) -> tuple[ShardFacts, tuple[str, ...]]:
    """What the header of a tar's index says, and what the scan left out. Errors as in ``load_index``."""
    header, _ = _read_index(tar)
    problems = tuple(header["problems"])
    return ShardFacts(header["num_samples"], header["tar_bytes"], header["tar_mtime_ns"], len(problems), header["digest"]), problems


def read_index_file(path: Path, tar: Path) -> tuple[ShardIndex, int]:
    """An index as it is, and the size in bytes that its tar had; ``tar`` is not looked at.

    Raises:
        DataError: there is none, it is damaged or of another format.
    """
    header, (keys, offsets, sizes, image_exts) = _load_arrays(path, tar, "keys", "offsets", "sizes", "image_exts")
    if header["format"] != _FORMAT:
        raise DataError(f"{path}: the index has format {header['format']}, and this version reads {_FORMAT}.")
    return ShardIndex(tar, keys, offsets, sizes, image_exts, tuple(header["problems"]), header["digest"]), header["tar_bytes"]


def build_manifest(tars: Sequence[Path]) -> Manifest:
    """Gather what a set of tars holds, indexing those whose index is missing or out of date.

    A tar that is in its folder's ``manifest.json`` with the size and modification time that it has costs no more than that look.

    Raises:
        DataError: no sample in any tar, or what ``index_shard`` raises.
    """
    table = ShardTable._named(tars)
    listed = np.zeros(len(table), bool)
    for number, folder in enumerate(table._folders):
        if (listing := read_manifest(Path(folder))) is not None and len(listing):
            rows = np.flatnonzero(table._folder_of == number)
            order = np.argsort(listing._names)
            found = order[np.searchsorted(listing._names, table._names[rows], sorter=order).clip(max=len(order) - 1)]
            listed[rows] = listing._names[found] == table._names[rows]
            table._counts[rows], table._digests[rows] = listing._counts[found], listing._digests[found]

    def check(first: int) -> None:
        for row in range(first, min(first + _LOOKS_PER_TASK, len(table))):
            if not listed[row] or _size_and_time(table._path(row)) != tuple(table._counts[row, 1:3].tolist()):
                table._set(row, _facts_or_index(Path(table._path(row))))

    with ThreadPoolExecutor(_THREADS) as pool:  # a look at a network's disk is waiting, above all
        list(pool.map(check, range(0, len(table), _LOOKS_PER_TASK)))
    return Manifest(table)


def join_entries(shards: Sequence[ShardEntry]) -> Manifest:
    """The manifest of remote tars whose content is known.

    Raises:
        DataError: no sample in any tar.
    """
    table = ShardTable.of(
        (shard.path.name for shard in shards),
        (ShardFacts(s.num_samples, s.num_bytes, s.mtime_ns, s.num_problems, s.digest) for s in shards),
    )
    table.remote = [shard.path for shard in shards]
    return Manifest(table)


def write_manifest(folder: Path) -> Manifest:
    """Gather what the tars of a folder hold from their indexes and write ``manifest.json``; make the indexes that are missing.

    Raises:
        DataError: the folder has no tars, or what ``build_manifest`` raises.
    """
    tars = sorted(Path(folder).glob("*.tar"))
    if not tars:
        raise DataError(f"{folder}: no .tar files in this folder.")
    manifest = Manifest(ShardTable.of(tars, map(_facts_or_index, tars)))
    save_manifest(Path(folder), manifest)
    return manifest


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into the folder that holds the manifest's tars, a line for each."""
    with atomic_path(folder / MANIFEST_NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
        fields = ("name", *ShardFacts._fields)
        head = {"num_samples": manifest.num_samples, "fingerprint": manifest.fingerprint}
        file.write(json.dumps(head)[:-1] + ', "shards": [')
        for row, (name, counts, digest) in enumerate(manifest.shards.rows()):
            file.write((",\n" if row else "\n") + json.dumps(dict(zip(fields, (name, *counts, digest), strict=True))))
        file.write("\n]}\n")


def read_manifest(folder: Path) -> ShardTable | None:
    """What the ``manifest.json`` of a folder says; None where there is none.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes(), os.path.join(folder, ""))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the manifest is damaged ({error}). Make it again with 'timix-data index {folder}'.") from error


def parse_manifest(content: bytes, folder: str) -> ShardTable:
    """The tars that the content of a ``manifest.json`` lists, in a folder that ends in a slash. Older manifests have empty digests.

    Raises:
        ValueError: it is not what ``save_manifest`` writes.
    """
    names: list[bytes] = []
    counts, digests = array("q"), bytearray()

    def take(fields: dict[str, Any]) -> dict[str, Any] | None:
        """Move a shard's fields to the columns as they are parsed, so that no object is left of it."""
        if "name" not in fields:
            return fields
        name, digest = fields["name"], fields.get("digest", "")
        numbers = fields["num_samples"], fields["num_bytes"], fields.get("mtime_ns", -1), fields.get("num_problems", 0)
        if "/" in name or not name.endswith(".tar"):
            raise ValueError(f"{name!r} is not the name of a tar")
        if min(numbers[0], numbers[1], numbers[3]) < 0 or len(digest) not in (0, _DIGEST_CHARS):
            raise ValueError(f"of {name}, it has {numbers} and {digest!r}")
        names.append(os.fsencode(name))
        counts.extend(numbers)
        digests.extend(digest.encode().ljust(_DIGEST_CHARS, b"\0"))
        return None

    try:
        shards = json.loads(content, object_hook=take)["shards"]
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(repr(error)) from error
    if shards != [None] * len(names):
        raise ValueError("a shard has no name")
    if len(set(names)) != len(names):
        raise ValueError("a shard is listed twice")
    columns = np.array(names, np.bytes_), np.array(counts, np.int64).reshape(-1, 4), np.frombuffer(digests, _DIGEST)
    return ShardTable([folder], np.zeros(len(names), np.int32), *columns)


def _facts_or_index(tar: Path) -> ShardFacts:
    try:
        return load_facts(tar)[0]
    except OSError as error:
        raise DataError(f"{tar}: its index cannot be read ({error}); mend the disk or network.") from error
    except DataError:
        index_shard(tar)
        return load_facts(tar)[0]


def _read_index(tar: Path, *names: str) -> tuple[dict[str, Any], list[NDArray]]:
    """The header of a tar's index, which must fit the tar, and the named arrays."""
    header, arrays = _load_arrays(_index_path(tar), tar, *names)
    if not _state(tar).items() <= header.items():
        raise DataError(f"{tar}: the shard has changed since it was indexed. Make its index again with 'timix-data index {tar}'.")
    return header, arrays


def _load_arrays(path: Path, tar: Path, *names: str) -> tuple[dict[str, Any], list[NDArray]]:
    advice = f"Make it with 'timix-data index {tar}'."
    try:
        with np.load(path) as file:
            header, arrays = json.loads(file["header"].item()), [file[name] for name in names]
    except FileNotFoundError:
        raise DataError(f"{tar}: the shard has no index. {advice}") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the index is damaged ({error}). {advice}") from error
    return header, arrays


def _state(tar: Path) -> dict[str, int]:
    """What tells whether an index still fits its tar."""
    num_bytes, mtime_ns = _size_and_time(tar)
    return {"format": _FORMAT, "tar_bytes": num_bytes, "tar_mtime_ns": mtime_ns}


def _size_and_time(tar: Path | str) -> tuple[int, int]:
    try:
        stat = os.stat(tar)
    except FileNotFoundError:
        raise DataError(f"{tar}: no such shard. Restore it, or start without it.") from None
    return stat.st_size, stat.st_mtime_ns


def _index_path(tar: Path) -> Path:
    return tar.with_name(tar.name + ".index.npz")
