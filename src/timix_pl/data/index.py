"""Indexes of shards: what lies where in each tar, and what a set of tars holds.

The index of ``NAME.tar`` is ``NAME.tar.index.npz`` beside it. It records the tar's size and modification time, and is refused when they
differ.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timix_pl.core.errors import DataError
from timix_pl.core.files import atomic_path
from timix_pl.data.tar_scan import IMAGE, JSON, TEXT, scan_tar

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = ".unfinished"
"""Lies in a folder while a ``ShardWriter`` writes to it."""

_FORMAT = 1


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
    """A path, or a :class:`timix_pl.data.remote.RemoteShard`."""

    @property
    def name(self) -> str:
        """Its file name."""


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a manifest."""

    path: Tar
    num_samples: int
    num_bytes: int
    digest: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A set of tars in order. ``fingerprint`` is a hash of names, counts, sizes and indexes, and stays when the folder is moved."""

    shards: tuple[ShardEntry, ...]
    num_samples: int
    fingerprint: str


def index_shard(tar: Path) -> ShardIndex:
    """Scan a tar and write its index beside it.

    Raises:
        DataError: the tar is missing, broken or cut off, or the index cannot be written.
    """
    tar = Path(tar)
    samples, problems = scan_tar(tar)
    members = [[sample.members.get(kind, (0, -1)) for kind in (IMAGE, TEXT, JSON)] for sample in samples.values()]
    keys = np.array(list(samples), np.str_)
    image_exts = np.array([s.image_ext for s in samples.values()], np.str_)
    offsets, sizes = np.moveaxis(np.array(members, np.int64).reshape(-1, 3, 2), -1, 0).copy()
    digest = hashlib.sha256(json.dumps([keys.tolist(), image_exts.tolist()]).encode() + offsets.tobytes() + sizes.tobytes()).hexdigest()
    header = _state(tar) | {"num_samples": len(keys), "digest": digest, "problems": problems}
    try:
        with atomic_path(_index_path(tar)) as temporary, temporary.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), keys=keys, offsets=offsets, sizes=sizes, image_exts=image_exts)
    except OSError as error:
        raise DataError(f"{tar}: its index cannot be written beside it ({error}). Copy the shards to a writable folder.") from error
    return ShardIndex(tar, keys, offsets, sizes, image_exts, tuple(problems), digest)


def load_index(tar: Path) -> ShardIndex:
    """Read the index of a tar.

    Raises:
        DataError: there is none, it is damaged, or the tar has changed since.
    """
    tar = Path(tar)
    header, (keys, offsets, sizes, image_exts) = _read_index(tar, "keys", "offsets", "sizes", "image_exts")
    return ShardIndex(tar, keys, offsets, sizes, image_exts, tuple(header["problems"]), header["digest"])


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

    Raises:
        DataError: no sample in any tar, or what ``index_shard`` raises.
    """
    return join_entries([_entry(Path(tar)) for tar in tars])


def join_entries(shards: Sequence[ShardEntry]) -> Manifest:
    """The manifest of tars whose content is known.

    Raises:
        DataError: no sample in any tar.
    """
    num_samples = sum(shard.num_samples for shard in shards)
    if num_samples == 0:
        names = ", ".join(str(shard.path) for shard in shards[:3])
        raise DataError(f"No sample with an image in {len(shards)} shards ({names}). Images are members named KEY.jpg, .png or .webp.")
    facts = [[shard.path.name, shard.num_samples, shard.num_bytes, shard.digest] for shard in shards]
    return Manifest(tuple(shards), num_samples, hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def write_manifest(folder: Path) -> Manifest:
    """Index the tars of a folder and write ``manifest.json``, which lists them.

    Raises:
        DataError: the folder has no tars, or what ``build_manifest`` raises.
    """
    tars = sorted(Path(folder).glob("*.tar"))
    if not tars:
        raise DataError(f"{folder}: no .tar files in this folder.")
    manifest = build_manifest(tars)
    shards = [{"name": s.path.name, "num_samples": s.num_samples, "num_bytes": s.num_bytes, "digest": s.digest} for s in manifest.shards]
    content = {"num_samples": manifest.num_samples, "fingerprint": manifest.fingerprint, "shards": shards}
    with atomic_path(Path(folder) / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return manifest


def _entry(tar: Path) -> ShardEntry:
    try:
        header, _ = _read_index(tar)
    except DataError:
        index_shard(tar)
        header, _ = _read_index(tar)
    return ShardEntry(tar, header["num_samples"], header["tar_bytes"], header["digest"], tuple(header["problems"]))


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
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: the index is damaged ({error}). {advice}") from error
    return header, arrays


def _state(tar: Path) -> dict[str, int]:
    """What tells whether an index still fits its tar."""
    try:
        stat = tar.stat()
    except FileNotFoundError:
        raise DataError(f"{tar}: no such shard.") from None
    return {"format": _FORMAT, "tar_bytes": stat.st_size, "tar_mtime_ns": stat.st_mtime_ns}


def _index_path(tar: Path) -> Path:
    return tar.with_name(tar.name + ".index.npz")
