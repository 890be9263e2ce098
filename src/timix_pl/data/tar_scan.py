"""The members of a webdataset tar and where their bytes lie."""

import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from timix_pl.core.errors import DataError

IMAGE, TEXT, JSON = range(3)
"""The kinds of member that a sample has: columns of ``ShardIndex.offsets`` and ``ShardIndex.sizes``."""

IMAGE_EXTS = ("jpg", "jpeg", "png", "webp")
KIND_OF_EXT = dict.fromkeys(IMAGE_EXTS, IMAGE) | {"txt": TEXT, "caption": TEXT, "json": JSON}

_BLOCK_BYTES = 512


@dataclass
class ScannedSample:
    """One sample: (offset, size) in bytes of each kind of member it has, and the image's extension in lower case."""

    members: dict[int, tuple[int, int]] = field(default_factory=dict)
    image_ext: str = ""


def scan_tar(path: Path) -> tuple[dict[str, ScannedSample], list[str]]:
    """Find the samples of a tar by webdataset's naming: the key is the name up to the first dot of its last part.

    Members of other kinds (``.cls``, ``.npy``), folders and hidden files are passed over.

    Args:
        path: an uncompressed tar.
    Returns:
        The samples that have an image, by key, in the order of their first member; and one line for each thing left out.
    Raises:
        DataError: the file is missing, is not a plain tar, or was cut off.
    """
    samples: dict[str, ScannedSample] = {}
    problems: list[str] = []
    for name, offset, size in _read_members(path):
        directory, slash, base = name.rpartition("/")
        stem, _, ext = base.partition(".")
        kind = KIND_OF_EXT.get(ext.lower())
        if not stem or kind is None:
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


def _read_members(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset of the data, size) of every regular member."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            trailer = file.read(_BLOCK_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: no such shard.") from None
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a whole, uncompressed tar ({error}). Fetch or write it again; unpack a compressed one.") from error
    if trailer != bytes(_BLOCK_BYTES):
        raise DataError(f"{path}: the tar is cut off or damaged: no end mark at byte {end}. Fetch or write it again.")
    return members
