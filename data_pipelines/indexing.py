"""Indexing shards that another tool wrote."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from timix_pl.core.errors import DataError
from timix_pl.data.index import index_shard, write_manifest
from timix_pl.data.shards import resolve_shards


def index_shards(specs: Iterable[str]) -> Iterator[str]:
    """Scan tars and write their indexes, and ``manifest.json`` into folders that are given whole.

    Args:
        specs: folders, tars or patterns.
    Yields:
        Lines for people: what each holds, and what the scan left out.
    Raises:
        DataError: a path is missing, or a tar is broken.
    """
    for spec in specs:
        folder = Path(spec)
        tars = sorted(folder.glob("*.tar")) if folder.is_dir() else _local_tars(spec)
        if not tars:
            raise DataError(f"{folder}: no .tar files in this folder.")
        num_samples = 0
        for tar in tqdm(tars, desc=str(spec), unit=" shards", disable=None):
            index = index_shard(tar)
            num_samples += len(index)
            yield from (f"{tar}: {problem}" for problem in index.problems)
        if folder.is_dir():
            write_manifest(folder)
        yield f"{spec}: {num_samples} samples in {len(tars)} shards"


def _local_tars(spec: str) -> list[Path]:
    if "://" in spec and not spec.startswith("file:"):
        raise DataError(f"{spec}: indexes are written beside the tars. Run this where they are local, then upload what it wrote.")
    return [tar for tar in resolve_shards(spec, "SHARDS")[0].tars if isinstance(tar, Path)]
