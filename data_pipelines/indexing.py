"""Indexing shards that another tool wrote."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipelines.parallel import parallel_map
from data_pipelines.repeated_keys import RepeatedKeys, hash_keys
from timix_pl.core.errors import DataError
from timix_pl.data.index import Manifest, ShardFacts, ShardTable, index_shard, load_facts, load_index, save_manifest, scan_shard
from timix_pl.data.shards import resolve_shards

_MAX_LINES = 100


class _Indexed(NamedTuple):
    """What became of a tar; ``facts`` is None where ``error`` says why it has no index."""

    facts: ShardFacts | None
    problems: tuple[str, ...]
    hashes: NDArray[np.uint64]
    error: str


def index_shards(specs: Iterable[str], *, jobs: int = 1, force: bool = False, accept_truncated: bool = False) -> Iterator[str]:
    """Scan the tars that have no valid index, write their indexes, and ``manifest.json`` into folders that are given whole.

    Args:
        specs: folders, tars or patterns.
        jobs: processes.
        force: scan the others too.
        accept_truncated: see ``timix_pl.data.index.index_shard``.
    Yields:
        Lines for people: what each holds, what the scans left out, and keys that several shards have.
    Raises:
        DataError: a path is missing; or, when all others are indexed, tars that are broken. A folder that has one gets no manifest.
    """
    for spec in specs:
        tars = _tars_of(spec)
        facts, broken, keys, num_problems = [], [], RepeatedKeys(), 0
        work = parallel_map(partial(_index, force=force, accept_truncated=accept_truncated), tars, min(jobs, len(tars)))
        for tar, indexed in zip(tqdm(tars, desc=spec, unit=" shards", disable=None), work, strict=True):
            keys.add(indexed.hashes)
            yield from (f"{tar}: {problem}" for problem in indexed.problems[: max(_MAX_LINES - num_problems, 0)])
            num_problems += len(indexed.problems)
            if indexed.facts is None:
                broken.append(indexed.error)
            else:
                facts.append(indexed.facts)
        if num_problems > _MAX_LINES:
            yield f"{spec}: {num_problems} problems in all; 'timix-data inspect' counts them by reason"
        yield from _repeated(spec, keys, tars)
        if broken:
            raise DataError("\n".join([f"{spec}: {len(broken)} of {len(tars)} shards cannot be indexed.", *_limited(broken, "shards")]))
        manifest = Manifest(ShardTable.of(tars, facts))
        if Path(spec).is_dir():
            save_manifest(Path(spec), manifest)
        yield f"{spec}: {manifest.num_samples} samples in {len(tars)} shards"


def verify_shards(specs: Iterable[str], *, jobs: int = 1) -> Iterator[str]:
    """Scan tars and compare what they hold with their indexes; nothing is written.

    Yields:
        A line for each set that is as its indexes say.
    Raises:
        DataError: a path is missing, or a tar differs from its index or has none.
    """
    for spec in specs:
        tars = _tars_of(spec)
        work = parallel_map(_difference, tars, min(jobs, len(tars)))
        differing = [line for line in tqdm(work, desc=spec, total=len(tars), unit=" shards", disable=None) if line]
        if differing:
            head = f"{spec}: {len(differing)} of {len(tars)} shards differ from their index."
            raise DataError("\n".join([head, *_limited(differing, "shards")]))
        yield f"{spec}: {len(tars)} shards are as their indexes say"


def _tars_of(spec: str) -> list[Path]:
    folder = Path(spec)
    tars = sorted(folder.glob("*.tar")) if folder.is_dir() else _local_tars(spec)
    if not tars:
        raise DataError(f"{folder}: no .tar files in this folder.")
    return tars


def _local_tars(spec: str) -> list[Path]:
    if "://" in spec and not spec.startswith("file:"):
        raise DataError(f"{spec}: indexes are written beside the tars. Run this where they are local, then upload what it wrote.")
    return [tar for tar in resolve_shards(spec, "SHARDS")[0].tars if isinstance(tar, Path)]


def _index(tar: Path, *, force: bool, accept_truncated: bool) -> _Indexed:
    try:
        if force or not _has_index(tar):
            index_shard(tar, accept_truncated=accept_truncated)
        facts, problems = load_facts(tar)
        return _Indexed(facts, problems, hash_keys(load_index(tar).keys), "")
    except (DataError, OSError) as error:
        return _Indexed(None, (), np.empty(0, np.uint64), str(error))


def _has_index(tar: Path) -> bool:
    try:
        load_facts(tar)
        return True
    except DataError:
        return False


def _difference(tar: Path) -> str:
    """What is wrong between a tar and its index; nothing where they fit."""
    try:
        index, found = load_index(tar), scan_shard(tar, accept_truncated=True)
    except (DataError, OSError) as error:
        return str(error)
    if index.digest == found.digest and index.problems == found.problems:
        return ""
    return (
        f"{tar}: {len(index)} samples by its index, {len(found)} in the tar, or elsewhere. Index it with 'timix-data index --force {tar}'."
    )


def _repeated(spec: str, keys: RepeatedKeys, tars: list[Path]) -> Iterator[str]:
    count, lines = keys.find(tars, _MAX_LINES)
    for line in lines:
        yield f"{spec}: {line}"
    if count:
        looked = "" if keys.every == 1 else f", of every {keys.every}th key that was looked at"
        yield f"{spec}: {count} keys come in more than one shard{looked}"


def _limited(lines: list[str], what: str) -> list[str]:
    more = [f"... and {len(lines) - _MAX_LINES} more {what}"] if len(lines) > _MAX_LINES else []
    return lines[:_MAX_LINES] + more
