"""Shards that cannot be indexed, drawn with replacement through webdataset.

There is no order: there are no epochs, a resumed run draws other samples, and some samples may never come. Every shard is as likely to be
drawn as another, whatever its size.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import webdataset
from braceexpand import braceexpand
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander, url_opener

from timix_pl.core.errors import DataError
from timix_pl.core.randomness import seed_of
from timix_pl.core.sample import Sample
from timix_pl.core.types import PairBatch
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.shards.reader import BadSampleError, make_sample
from timix_pl.data.shards.sources import PIPE, resolve_shards, shard_items
from timix_pl.data.shards.tar_scan import IMAGE_EXTS

_SHUFFLE_SAMPLES = 1000
_MAX_BAD_IN_A_ROW = 1000


class ResampledShards:
    """Tars to draw from.

    Args:
        shards: a folder, a pattern, or a list without weights.
        key: what the user calls them, for messages.
        seed: the run's seed.
        access: how remote shards are cached. They are always read whole.
        allow_pipe: accept ``pipe:COMMAND`` too. The command runs in a shell, and its output is a tar.
    Raises:
        DataError: missing shards, weights, a source that cannot be reached, or a ``pipe:`` that is not allowed.
    """

    num_samples = None

    def __init__(
        self,
        shards: Any,
        *,
        key: str,
        seed: int,
        access: RemoteAccess = RemoteAccess(),  # noqa: B008
        allow_pipe: bool = False,
    ):
        items = shard_items(shards)
        pipes = [item for item in items if allow_pipe and isinstance(item, str) and item.startswith(PIPE)]
        files = [item for item in items if item not in pipes]
        sources = resolve_shards(files, key, access) if files or not pipes else []
        if any(source.weight != 1 for source in sources):
            raise DataError(f"{key}: shards that are drawn from take no weights. Leave them out, or use `SampleStream`")
        tars = [tar for source in sources for tar in source.tars]
        tars.sort(key=lambda tar: "://" in tar.location)  # local tars first, as in the fingerprint of older checkpoints
        self._tars = {tar.location: tar for tar in tars}
        self.paths = [*(tar.location for tar in tars), *(command for pipe in pipes for command in braceexpand(pipe))]
        self.seed, self.key = seed, key
        self.fingerprint = f"{seed_of(*[Path(path).name for path in self.paths]):016x}"

    def samples(self, *ids: int, on_broken: Callable[[str, str], None]) -> Iterator[dict[str, Any]]:
        """An endless, shuffled sequence of webdataset's samples. Other ``ids`` give another sequence.

        Args:
            on_broken: called with the shard and the reason where the rest of a shard cannot be read. Another shard follows.
        """

        def go_on(error: Exception) -> bool:
            shard = error.args[-1] if error.args else ""
            if shard is not None and shard not in self.paths:
                raise error  # from inside a shard: webdataset calls this again with the shard's path
            detail = next((arg for arg in error.args if isinstance(arg, str)), "")
            on_broken(shard or "", f"the rest of the shard cannot be read: {type(error).__name__}: {detail}")
            return True

        seed = seed_of("resampled", self.seed, *ids)
        shards = webdataset.ResampledShards(self.paths, seed=seed, worker_seed=lambda: seed, deterministic=True)

        def read(chosen: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            return group_by_keys(tar_file_expander(self._opened(chosen, go_on), handler=go_on), handler=go_on)

        return iter(webdataset.DataPipeline(shards, read, webdataset.shuffle(_SHUFFLE_SAMPLES, rng=random.Random(seed))))

    def _opened(self, chosen: Iterator[dict[str, Any]], go_on: Callable[[Exception], bool]) -> Iterator[dict[str, Any]]:
        for source in chosen:
            tar = self._tars.get(source["url"])
            if tar is None:  # a command
                yield from url_opener([source], handler=go_on)
                continue
            try:
                descriptor = tar.open_file()
            except OSError as error:
                error.args = (*error.args, tar.location)  # as url_opener does
                go_on(error)
                continue
            with os.fdopen(descriptor, "rb") as stream:
                yield source | {"stream": stream}


class ResampledSet(IterableDataset[PairBatch]):
    """Makes the item of each step from the samples that come next. Bad samples are reported and skipped. Region batches keep their order.

    Args:
        shards: where the pairs come from.
        training_set: makes the items, and has the region batches.
        first_step: how many steps are done.
        max_steps: steps of the whole run.
    """

    def __init__(self, shards: ResampledShards, training_set: PairSet, first_step: int, max_steps: int):
        self.shards, self.training_set, self.first_step, self.max_steps = shards, training_set, first_step, max_steps

    def __len__(self) -> int:
        return self.max_steps

    def __iter__(self) -> Iterator[PairBatch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        ids = (self.first_step, self.training_set.rank, number)
        problems: list[dict[str, Any]] = []

        def pass_over(shard: str, reason: str, key: str = "") -> None:
            folder, _, name = shard.rpartition("/")
            where = {"stream": self.shards.key, "folder": folder, "shard": name, "key": key}
            problems.append(where | {"reason": reason, "outcome": "passed over"})
            if len(problems) > _MAX_BAD_IN_A_ROW:
                raise DataError(f"{self.shards.key}: more than {_MAX_BAD_IN_A_ROW} samples of a batch cannot be used; the last: {reason}")

        samples = enumerate(self.shards.samples(*ids, on_broken=pass_over))
        for step in range(self.first_step + number, self.max_steps, count):
            pairs: list[Any] = []
            while len(pairs) < self.training_set.batch_size:
                drawn, raw = next(samples)
                try:
                    pairs.append(self.training_set.use_pair(_sample(raw), (seed_of(*ids), drawn)))
                except BadSampleError as error:
                    pass_over(raw["__url__"], str(error), raw["__key__"])
            yield self.training_set.assemble(step, pairs, problems[:])
            problems.clear()


def _sample(raw: dict[str, Any]) -> Sample:
    ext = next((ext for ext in IMAGE_EXTS if ext in raw), None)
    if ext is None:
        raise BadSampleError("the sample has no image (jpg, png or webp)")
    return make_sample(
        raw["__key__"], Path(raw.get("__url__", "")).name, raw[ext], ext, raw.get("txt", raw.get("caption")), raw.get("json")
    )
