"""The samples of some shards in their training order, with bad ones replaced."""

from collections.abc import Callable
from typing import Any

from timix_pl.core.errors import DataError
from timix_pl.core.randomness import seed_of
from timix_pl.core.sample import Sample
from timix_pl.data.order import BlendedOrder, SourceOrder
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

_MAX_REPLACEMENTS = 100
_MAX_OF_SHARD = 20
"""So many replacements are drawn from the shard of the bad sample, and later ones from any shard."""

_INSPECT = "'timix-data inspect SHARDS' shows what shards hold. Repair them, or name others"


class SampleStream:
    """The samples of shards in their endless training order. Bad samples are replaced.

    Args:
        shards: a folder, a pattern, or a list with weights.
        key: what the user calls them, for messages.
        seed: the run's seed.
        name: streams with the same seed and another name have another order.
        window_shards: shards whose samples are shuffled together.
        max_image_mb: a sample with a member of more megabytes is a bad one, and is not read.
        access: how remote shards are read.
    Raises:
        DataError: missing shards, an empty pattern, or a source that cannot be reached.
    """

    def __init__(
        self,
        shards: Any,
        *,
        key: str,
        seed: int,
        name: str,
        window_shards: int,
        max_image_mb: float = 100.0,
        access: RemoteAccess = RemoteAccess(),  # noqa: B008
    ):
        sources = resolve_shards(shards, key, access)
        manifests = [source.tars.manifest() for source in sources]
        orders = [
            SourceOrder(manifest.shards.sizes, seed=seed, name=f"{name}-{number}", window_shards=window_shards)
            for number, manifest in enumerate(manifests)
        ]
        self.order = BlendedOrder(orders, [source.weight for source in sources], seed=seed)
        self.reader = ShardReader(manifests, open_shards=window_shards * len(manifests) + 1, max_image_mb=max_image_mb)
        weights = [source.weight for source in sources]
        self.fingerprint = f"{seed_of(name, window_shards, *[m.fingerprint for m in manifests], *map(str, weights)):016x}"
        self.num_problems = sum(int(manifest.shards.num_problems.sum()) for manifest in manifests)
        self.key, self._seed = key, seed

    @property
    def num_samples(self) -> int:
        """Samples in all sources."""
        return self.order.num_samples

    def check(self, use: Callable[[Sample], Any]) -> None:
        """Check before a run that some samples can be used. No image is read. Of a large set 64 samples are checked.

        Args:
            use: raises ``BadSampleError`` for a sample that it cannot use.
        Raises:
            DataError: none of them can be used.
        """
        numbers, reason = self.reader.some(), ""
        for number in numbers:
            try:
                use(self.reader.without_image(number))
                return
            except BadSampleError as error:
                reason = str(error)
        raise DataError(f"{self.key}: none of the {len(numbers)} samples looked at can be used; the last reason: {reason}. {_INSPECT}")

    def load(self, start: int, count: int, use: Callable[[Sample, tuple[int, int]], Any], problems: list[dict[str, Any]]) -> list[Any]:
        """The results of ``use(sample, (epoch, number))`` for ``count`` positions from ``start`` on.

        A sample for which ``use`` raises ``BadSampleError`` is replaced by another, always by the same one.

        Args:
            problems: gets the stream, position, folder, shard, key, reason and outcome of each bad sample.
        Raises:
            DataError: 100 samples in a row cannot be used.
        """
        located = self.order.locate(start, start + count)
        self.reader.expect(located[:, 1].tolist(), lambda: self.order.shards_from(start))
        return [self._load_one(position, int(epoch), int(number), use, problems) for position, (epoch, number) in enumerate(located, start)]

    def _load_one(
        self, position: int, epoch: int, number: int, use: Callable[[Sample, tuple[int, int]], Any], problems: list[dict[str, Any]]
    ) -> Any:
        tried: set[int] = set()
        for attempt in range(_MAX_REPLACEMENTS):
            near = self.reader.numbers_beside(number) if attempt <= _MAX_OF_SHARD else range(len(self.reader))
            chosen = near[seed_of("replacement", self._seed, epoch, number, attempt) % len(near)] if attempt else number
            if chosen in tried:
                continue
            tried.add(chosen)
            try:
                return use(self.reader[chosen], (epoch, chosen))
            except BadSampleError as error:
                shard, key = self.reader.name(chosen)
                where = {"stream": self.key, "position": position, "folder": self.reader.folder(chosen), "shard": shard, "key": key}
                problems.append(where | {"reason": str(error), "outcome": "replaced"})
        raise DataError(
            f"{self.key}: {_MAX_REPLACEMENTS} samples in a row cannot be used; the last reason: {problems[-1]['reason']}. {_INSPECT}"
        )
