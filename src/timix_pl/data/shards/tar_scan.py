"""The members of a webdataset tar and where their bytes lie."""

import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from timix_pl.core.errors import DataError

IMAGE, TEXT, JSON = range(3)
"""The kinds of member of a sample, which are columns of ``ShardIndex.offsets`` and ``ShardIndex.sizes``."""

IMAGE_EXTS = ("jpg", "jpeg", "png", "webp")
KIND_OF_EXT = dict.fromkeys(IMAGE_EXTS, IMAGE) | {"txt": TEXT, "caption": TEXT, "json": JSON}

HEADER_BYTES = _BLOCK_BYTES = 512
_MAX_PLAIN_CHARS = 90


class BrokenTarError(DataError):
    """A tar that cannot be used as it is. ``reason`` says why, without the path."""

    reason = ""


@dataclass
class ScannedSample:
    """One sample: (offset, size) in bytes of each kind of member that it has, and the image's extension in lower case."""

    members: dict[int, tuple[int, int]] = field(default_factory=dict)
    image_ext: str = ""


def scan_tar(path: Path, *, accept_truncated: bool = False) -> tuple[dict[str, ScannedSample], list[str]]:
    """Find the samples of a tar by webdataset's naming: the key is the name up to the first dot of its last part.

    Members of other kinds (``.cls``, ``.npy``), folders and hidden files are skipped.

    Args:
        path: an uncompressed tar.
        accept_truncated: take the members before the cut or the damage of a tar. The rest becomes a problem.
    Returns:
        The samples that have an image, by key, in the order of their first member, and one line for each thing that is left out.
    Raises:
        DataError: the file is missing, is not a plain tar, or was cut off.
    """
    samples: dict[str, ScannedSample] = {}
    members, broken = _read_members(path)
    if broken and not accept_truncated:
        raise _broken(path, broken, "Fetch or write it again, or use its whole part with 'timix-data index --accept-truncated'.")
    problems = [f"{path.name}: {broken}; the samples after that are left out"] if broken else []
    for name, offset, size in members:
        directory, slash, base = name.rpartition("/")
        stem, _, ext = base.partition(".")
        kind = KIND_OF_EXT.get(ext.lower())
        if not stem or kind is None:
            continue
        if name.startswith("/") or ".." in directory.split("/"):
            problems.append(f"{name}: the member's name leads out of the tar (an absolute path or '..'); the member is left out")
            continue
        sample = samples.setdefault(directory + slash + stem, ScannedSample())
        if kind in sample.members:
            problems.append(f"{name}: its sample already has such a member; this one is ignored")
            continue
        sample.members[kind] = (offset, size)
        if kind == IMAGE:
            sample.image_ext = ext.lower()
    whole = {key: sample for key, sample in samples.items() if IMAGE in sample.members}
    problems += [f"{key}: no image ({', '.join(IMAGE_EXTS)}); the sample is left out" for key in samples if key not in whole]
    return whole, problems


def is_header_of(header: bytes, key: str, size: int) -> bool:
    """Whether a block can be the header of this sample's member. Long and non-ASCII names are stored elsewhere, and not compared."""
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return member.size == size and (member.name.startswith(f"{key}.") or len(key) > _MAX_PLAIN_CHARS or not key.isascii())


def _broken(path: Path, reason: str, advice: str) -> BrokenTarError:
    error = BrokenTarError(f"{path}: {reason}. {advice}")
    error.reason = reason
    return error


def _read_members(path: Path) -> tuple[list[tuple[str, int, int]], str]:
    """(name, offset of the data, size) of each whole regular file in the tar, and what is wrong with a tar that has no end."""
    members: list[tuple[str, int, int]] = []
    try:
        num_bytes = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            try:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
                    if member.isreg() and member.offset_data + member.size <= num_bytes:
                        members.append((member.name, member.offset_data, member.size))
                has_end = _has_end_mark(path, tar.offset)
            except tarfile.ReadError:
                has_end = False
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard.") from None
    except (tarfile.TarError, OSError) as error:
        raise _broken(path, f"not a whole, uncompressed tar ({error})", "Fetch or write it again; unpack a compressed one.") from error
    whole_bytes = members[-1][1] + members[-1][2] if members else 0
    return members, "" if has_end else f"the tar is cut off or damaged after {len(members)} members, at byte {whole_bytes} of {num_bytes}"


def _has_end_mark(path: Path, offset: int) -> bool:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(_BLOCK_BYTES) == bytes(_BLOCK_BYTES)
