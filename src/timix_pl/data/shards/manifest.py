"""What a set of tars holds, and ``manifest.json``, which says it of a folder.

The manifest repeats the header of each tar's index, so that a start opens none of the indexes.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from timix_pl.core.errors import DataError
from timix_pl.core.files import atomic_path
from timix_pl.core.words import counted
from timix_pl.data.shards.index import ShardFacts
from timix_pl.data.shards.tar import Tar

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = ".unfinished"
"""Lies in a folder while a ``ShardWriter`` writes to it."""

_DIGEST_CHARS = 64
_DIGEST = np.dtype(f"S{_DIGEST_CHARS}")
_CHUNK = 1024
_MAX_NAMED = 3


class ShardTable:
    """What is known of each tar, in columns: about 150 bytes a tar, so that a million tars fit in memory.

    Attributes:
        names: file names.
        counts: int64 of shape [num_tars, 4]: ``num_samples``, ``num_bytes``, ``mtime_ns`` and ``num_problems`` of ``ShardFacts``.
        digests: of the indexes; empty where a manifest of an older version has none.
    """

    def __init__(self, names: NDArray[np.bytes_], counts: NDArray[np.int64], digests: NDArray[np.bytes_]):
        self.names, self.counts, self.digests = names, counts, digests

    @classmethod
    def empty(cls, names: NDArray[np.bytes_]) -> Self:
        """A table whose rows are still to be set."""
        return cls(names, np.zeros((len(names), 4), np.int64), np.zeros(len(names), _DIGEST))

    def set(self, row: int, facts: ShardFacts) -> None:
        """Write one row."""
        self.counts[row], self.digests[row] = facts[:-1], facts.digest.encode()

    def __len__(self) -> int:
        return len(self.names)

    def digest(self, row: int) -> str:
        """The digest of one tar's index."""
        return self.digests[row].decode()

    def rows(self) -> Iterator[tuple[str, ShardFacts]]:
        """The name of each tar, and what is known of it."""
        for first in range(0, len(self), _CHUNK):  # NumPy converts many elements faster than each of them
            part = slice(first, first + _CHUNK)
            names, digests = map(os.fsdecode, self.names[part].tolist()), map(bytes.decode, self.digests[part].tolist())
            for name, counts, digest in zip(names, self.counts[part].tolist(), digests, strict=True):
                yield name, ShardFacts._make((*counts, digest))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Samples of each tar."""
        return self.counts[:, 0]

    @property
    def num_bytes(self) -> NDArray[np.int64]:
        """Size of each tar."""
        return self.counts[:, 1]

    @property
    def num_problems(self) -> NDArray[np.int64]:
        """How many things the scan of each tar left out."""
        return self.counts[:, 3]


class Tars(Protocol):
    """Tars in order, all of them local or all of them remote."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Tar: ...

    def __iter__(self) -> Iterator[Tar]: ...

    def manifest(self) -> "Manifest":
        """What they hold.

        Raises:
            DataError: no sample in any tar, a broken tar, or a source that cannot be reached.
        """


class Manifest:
    """Tars in order, and what they hold.

    Attributes:
        num_samples: in all tars.
        fingerprint: a hash of the names, counts, sizes and indexes. It does not change when the tars are moved.
    Raises:
        DataError: no sample in any tar.
    """

    def __init__(self, tars: Tars, shards: ShardTable):
        self.tars, self.shards, self.num_samples = tars, shards, int(shards.sizes.sum())
        if self.num_samples == 0:
            some = ", ".join(tar.location for tar in islice(tars, _MAX_NAMED))
            raise DataError(
                f"No sample with an image in {counted(len(shards), 'shard')} ({some}). Images are members named KEY.jpg, .png or .webp."
            )
        hashed, rows, start = hashlib.sha256(), shards.rows(), "["
        while part := [[name, facts.num_samples, facts.num_bytes, facts.digest] for name, facts in islice(rows, _CHUNK)]:
            hashed.update((start + json.dumps(part)[1:-1]).encode())
            start = ", "
        hashed.update(b"]")
        self.fingerprint = hashed.hexdigest()

    @classmethod
    def of(cls, tars: Tars, facts: Iterable[ShardFacts]) -> Self:
        """The manifest of tars whose facts are known, in the same order."""
        table = ShardTable.empty(np.array([os.fsencode(tar.name) for tar in tars], np.bytes_))
        for row, known in enumerate(facts):
            table.set(row, known)
        return cls(tars, table)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into the folder that holds the manifest's tars, one line for each tar."""
    with atomic_path(folder / MANIFEST_NAME) as temporary, temporary.open("w", encoding="utf-8") as file:
        head = {"num_samples": manifest.num_samples, "fingerprint": manifest.fingerprint}
        file.write(json.dumps(head)[:-1] + ', "shards": [')
        for row, (name, facts) in enumerate(manifest.shards.rows()):
            file.write((",\n" if row else "\n") + json.dumps({"name": name} | facts._asdict()))
        file.write("\n]}\n")


def read_manifest(folder: Path) -> ShardTable | None:
    """What the ``manifest.json`` of a folder says. None where there is none.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the manifest is damaged ({error}). Make it again with 'timix-data index {folder}'.") from error


def parse_manifest(content: bytes) -> ShardTable:
    """The tars that the content of a ``manifest.json`` lists. Those of older versions have empty digests.

    Raises:
        ValueError: it is not what ``save_manifest`` writes.
    """
    names: list[bytes] = []
    counts, digests = array("q"), bytearray()

    def take(fields: dict[str, Any]) -> dict[str, Any] | None:
        """Move the fields of a tar to the columns as soon as they are parsed, so that no object per tar is kept."""
        if "name" not in fields:
            return fields
        name, digest = fields["name"], fields.get("digest", "")
        numbers = fields["num_samples"], fields["num_bytes"], fields.get("mtime_ns", -1), fields.get("num_problems", 0)
        if "/" in name or not name.endswith(".tar"):
            raise ValueError(f"{name!r} is not the name of a tar")
        if min(numbers[0], numbers[1], numbers[3]) < 0 or len(digest) not in (0, _DIGEST_CHARS):
            raise ValueError(f"{name} has {numbers} and {digest!r}")
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
    return ShardTable(np.array(names, np.bytes_), np.array(counts, np.int64).reshape(-1, 4), np.frombuffer(digests, _DIGEST))
