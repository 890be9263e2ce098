"""The interface of a tar of samples. ``LocalTar`` and ``RemoteTar`` implement it, so that readers need not know where a tar lies."""

from collections.abc import Sequence
from typing import Protocol

from timix_pl.data.shards.index import ShardIndex


class MemberReader(Protocol):
    """Reads members of one tar."""

    @property
    def parallel(self) -> bool:
        """Whether several samples come faster when they are read at the same time."""

    def read_members(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The members of the sample ``key`` at these (offset, size), in bytes.

        Raises:
            DataError: they cannot be read, or belong to another sample.
        """


class Tar(Protocol):
    """A tar of samples. It holds nothing open, and is cheap to send to another process.

    Raises:
        DataError: from every method: the tar is gone, broken or changed, or its source cannot be reached.
    """

    @property
    def name(self) -> str:
        """The file name."""

    @property
    def location(self) -> str:
        """The path or the URL."""

    @property
    def cache_share(self) -> float | None:
        """The share of the local cache that the tar takes, 0 to 1. None where there is nothing to fetch before it is read."""

    def index(self) -> ShardIndex:
        """Where the members of each sample lie."""

    def reader(self) -> MemberReader:
        """Opens the tar for reads at any offset."""

    def open_file(self) -> int:
        """Opens the whole tar, and returns the file descriptor."""

    def read_beside(self, name: str) -> bytes:
        """The content of a file in the same folder.

        Raises:
            OSError: there is no such file.
        """

    def prefetch(self) -> None:
        """Fetch what reading needs into the local cache. Errors are only logged: reading meets them again."""
