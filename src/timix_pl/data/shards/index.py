"""The index of one tar: where the members of each sample lie in it.

The index of ``NAME.tar`` is the file ``NAME.tar.index.npz`` beside it. It records the size and the modification time of the tar. When the
tar has others, the index is refused.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timix_pl.core.errors import DataError
from timix_pl.core.files import atomic_path
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT, scan_tar

INDEX_SUFFIX = ".index.npz"

_FORMAT = 1
_COLUMNS = ("keys", "offsets", "sizes", "image_exts")


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the members of each sample lie in a tar.

    Attributes:
        keys: the key of each sample.
        offsets, sizes: in bytes, int64 of shape [num_samples, 3], with columns ``IMAGE``, ``TEXT`` and ``JSON``. The size of a member that
            the sample does not have is -1.
        image_exts: the extension of each image, in lower case.
        problems: what the scan left out, one line each.
        digest: a hash of the four arrays.
    """

    keys: NDArray[np.str_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    image_exts: NDArray[np.str_]
    problems: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.keys)


class ShardFacts(NamedTuple):
    """What a manifest says of a tar: its size and modification time when it was indexed, and what the scan found.

    ``mtime_ns`` is 0 for a remote tar.
    """

    num_samples: int
    num_bytes: int
    mtime_ns: int
    num_problems: int
    digest: str


def index_shard(tar: Path, *, accept_truncated: bool = False) -> ShardIndex:
    """Scan a tar and write its index beside it.

    Args:
        accept_truncated: take the samples before the cut of a tar that was cut off. The rest becomes a problem.
    Raises:
        DataError: the tar is missing, broken or cut off, or the index cannot be written.
    """
    tar = Path(tar)
    state = _state(tar)  # before the scan: a tar that is still being written must not pass for a whole one
    index = scan_shard(tar, accept_truncated=accept_truncated)
    header = state | {"num_samples": len(index), "digest": index.digest, "problems": index.problems}
    columns = {name: getattr(index, name) for name in _COLUMNS}
    try:
        with atomic_path(_index_path(tar)) as temporary, temporary.open("wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **columns)
    except OSError as error:
        raise DataError(f"{tar}: its index cannot be written beside it ({error}). Copy the shards to a writable folder.") from error
    return index


def scan_shard(tar: Path, *, accept_truncated: bool = False) -> ShardIndex:
    """The index that a tar should have, found by a scan of the tar. Writes nothing. Arguments and errors are those of ``index_shard``."""
    samples, problems = scan_tar(tar, accept_truncated=accept_truncated)
    members = [[sample.members.get(kind, (0, -1)) for kind in (IMAGE, TEXT, JSON)] for sample in samples.values()]
    keys = np.array(list(samples), np.str_)
    image_exts = np.array([s.image_ext for s in samples.values()], np.str_)
    offsets, sizes = np.moveaxis(np.array(members, np.int64).reshape(-1, 3, 2), -1, 0).copy()
    digest = hashlib.sha256(json.dumps([keys.tolist(), image_exts.tolist()]).encode() + offsets.tobytes() + sizes.tobytes()).hexdigest()
    return ShardIndex(keys, offsets, sizes, image_exts, tuple(problems), digest)


def load_index(tar: Path) -> ShardIndex:
    """Read the index of a tar.

    Raises:
        DataError: there is none, it is damaged, or the tar has changed since.
        OSError: the disk fails; another try may help.
    """
    return _to_index(*_load_fitting(Path(tar), *_COLUMNS))


def load_facts(tar: Path) -> tuple[ShardFacts, tuple[str, ...]]:
    """What the header of a tar's index says, and the problems of the scan. Errors are those of ``load_index``."""
    header, _ = _load_fitting(Path(tar))
    problems = tuple(header["problems"])
    return ShardFacts(header["num_samples"], header["tar_bytes"], header["tar_mtime_ns"], len(problems), header["digest"]), problems


def load_or_make_facts(tar: Path) -> ShardFacts:
    """What the header of a tar's index says. The index is made first if it is missing, damaged or out of date.

    Raises:
        DataError: the disk fails, or what ``index_shard`` raises.
    """
    try:
        return load_facts(tar)[0]
    except OSError as error:
        raise DataError(f"{tar}: its index cannot be read ({error}). Check the disk and the network.") from error
    except DataError:
        index_shard(tar)
        return load_facts(tar)[0]


def read_index_file(path: Path) -> tuple[ShardIndex, int]:
    """An index as it is, and the size in bytes that its tar had. The tar is not looked at.

    Raises:
        DataError: there is none, it is damaged, or it has another format.
    """
    header, columns = _load_arrays(path, *_COLUMNS)
    if header["format"] != _FORMAT:
        raise DataError(f"{path}: the index has format {header['format']}, and this version reads format {_FORMAT}.")
    return _to_index(header, columns), header["tar_bytes"]


def size_and_time(tar: Path | str) -> tuple[int, int]:
    """The size in bytes and the modification time in nanoseconds of a file.

    Raises:
        DataError: there is no such file.
    """
    try:
        stat = os.stat(tar)
    except FileNotFoundError:
        raise DataError(f"{tar}: no such shard. Restore it, or start without it.") from None
    return stat.st_size, stat.st_mtime_ns


def _to_index(header: dict[str, Any], columns: list[NDArray]) -> ShardIndex:
    keys, offsets, sizes, image_exts = columns
    return ShardIndex(keys, offsets, sizes, image_exts, tuple(header["problems"]), header["digest"])


def _load_fitting(tar: Path, *names: str) -> tuple[dict[str, Any], list[NDArray]]:
    """The header of a tar's index, and the named arrays. The header must fit the tar."""
    header, arrays = _load_arrays(_index_path(tar), *names)
    if not _state(tar).items() <= header.items():
        raise DataError(f"{tar}: the shard has changed since it was indexed. Make its index again with 'timix-data index {tar}'.")
    return header, arrays


def _load_arrays(path: Path, *names: str) -> tuple[dict[str, Any], list[NDArray]]:
    tar = str(path).removesuffix(INDEX_SUFFIX)
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
    num_bytes, mtime_ns = size_and_time(tar)
    return {"format": _FORMAT, "tar_bytes": num_bytes, "tar_mtime_ns": mtime_ns}


def _index_path(tar: Path) -> Path:
    return tar.with_name(tar.name + INDEX_SUFFIX)
