"""Index shards that another tool wrote."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipelines.parallel import parallel_map
from data_pipelines.repeated_keys import RepeatedKeys, hash_keys
from timix_pl.core.errors import DataError
from timix_pl.core.words import counted
from timix_pl.data.shards.index import ShardFacts, index_shard, load_facts, load_index, scan_shard
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.manifest import MANIFEST_NAME, Manifest, read_manifest, save_manifest
from timix_pl.data.shards.sources import resolve_shards

_MAX_LINES = 100


class _Indexed(NamedTuple):
    """The result of indexing a tar. ``facts`` is None if there is no index; then ``error`` says why."""

    facts: ShardFacts | None
    problems: tuple[str, ...]
    hashes: NDArray[np.uint64]
    error: str


def index_shards(specs: Iterable[str], *, jobs: int = 1, force: bool = False, accept_truncated: bool = False) -> Iterator[str]:
    """Scan the tars that have no valid index and write their indexes. Folders in ``specs`` also get a ``manifest.json``.

    Args:
        specs: folders, tars or patterns.
        jobs: number of processes.
        force: also scan tars with a valid index.
        accept_truncated: see ``timix_pl.data.shards.index.index_shard``.
    Yields:
        Lines of text: the contents of each spec, what the scans left out, and keys that are in several shards.
    Raises:
        DataError: a path is missing, or tars are broken; the latter is raised after all other tars were indexed. A folder with a broken
            tar gets no manifest.
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
            yield f"{spec}: {counted(num_problems, 'problem')} in all; 'timix-data inspect' counts them by reason"
        yield from _repeated(spec, keys, tars)
        if broken:
            head = f"{spec}: {len(broken)} of {counted(len(tars), 'shard')} cannot be indexed."
            raise DataError("\n".join([head, *_limited(broken, "shards")]))
        manifest = Manifest.of(LocalTars(tars), facts)
        if Path(spec).is_dir():
            save_manifest(Path(spec), manifest)
        yield f"{spec}: {counted(manifest.num_samples, 'sample')} in {counted(len(tars), 'shard')}"


def verify_shards(specs: Iterable[str], *, jobs: int = 1) -> Iterator[str]:
    """Scan tars and compare them with their indexes, and the indexes with the folders' ``manifest.json``. Writes nothing.

    Yields:
        A line for each spec that agrees with its indexes.
    Raises:
        DataError: a path is missing, a folder differs from its manifest, or a tar differs from its index or manifest or has no index.
    """
    for spec in specs:
        tars = _local_tars(spec)
        work = parallel_map(_difference, zip(tars, _listed(tars), strict=True), min(jobs, len(tars)))
        differing = [line for line in tqdm(work, desc=spec, total=len(tars), unit=" shards", disable=None) if line]
        if differing:
            head = f"{spec}: {len(differing)} of {counted(len(tars), 'shard')} differ from their index or {MANIFEST_NAME}."
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
    return [Path(tar.location) for tar in resolve_shards(spec, "SHARDS")[0].tars]


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


def _listed(tars: Sequence[Path]) -> list[tuple[int, str] | None]:
    """Size in bytes and digest of each tar, from the ``manifest.json`` of its folder; None if the manifest does not have them."""
    listings = {folder: read_manifest(folder) for folder in {tar.parent for tar in tars}}
    known = {
        folder / name: (facts.num_bytes, facts.digest)
        for folder, listing in listings.items()
        if listing is not None
        for name, facts in listing.rows()
        if facts.digest  # older manifests have none
    }
    return [known.get(tar) for tar in tars]


def _difference(tar_and_listed: tuple[Path, tuple[int, str] | None]) -> str:
    """The difference between a tar, its index and its folder's manifest; empty if they agree."""
    tar, listed = tar_and_listed
    try:
        index, found = load_index(tar), scan_shard(tar, accept_truncated=True)
    except (DataError, OSError) as error:
        return str(error)
    if index.digest != found.digest or index.problems != found.problems:
        repaired = tar if listed is None else tar.parent  # the manifest too is written anew where the folder is given
        how = f"Index it with 'timix-data index --force {repaired}'."
        return f"{tar}: {counted(len(index), 'sample')} by its index, {len(found)} in the tar, or elsewhere. {how}"
    if listed not in (None, (tar.stat().st_size, index.digest)):
        return f"{tar}: {MANIFEST_NAME} is older than the index. Write it again with 'timix-data index {tar.parent}'."
    return ""


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
