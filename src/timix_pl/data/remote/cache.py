"""The cache of remote tars: a folder that the processes of a machine share, with locks and a bound on its size."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timix_pl.core.errors import DataError

_HASH_CHARS = 20
_OURS = "[0-9a-f]" * _HASH_CHARS


def folder_of(cache_dir: Path, *known_by: str | int) -> Path:
    """The folder for a tar that these values identify. Its name is a hash, which tells it from the folders of others."""
    return cache_dir / hashlib.sha256(json.dumps(known_by).encode()).hexdigest()[:_HASH_CHARS]


@contextmanager
def locked_file(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock that processes and threads share.

    Raises:
        BlockingIOError: another holds it, and ``wait`` is false.
        DataError: the cache cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise DataError(f"`cache_dir`: {path} cannot be written ({error}). Name a folder that can.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def drop_oldest(cache_dir: Path, max_bytes: int) -> bool:
    """Remove what killed downloads left, then the least recently opened tars, until ``max_bytes`` are left. Returns whether that worked.

    Tars that a process is fetching or about to open stay. So do all files that are not the cache's own.
    """
    files = []
    for path in [*cache_dir.glob(f"{_OURS}/*.tar"), *cache_dir.glob(f"{_OURS}/*.part")]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        files.append((path.suffix != ".part", stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, _, size, _ in files)
    for _, _, size, path in sorted(files):
        if total <= max_bytes:
            break
        try:
            with locked_file(path.with_name("lock"), wait=False):
                path.unlink(missing_ok=True)
            total -= size
        except BlockingIOError:
            continue
    return total <= max_bytes
