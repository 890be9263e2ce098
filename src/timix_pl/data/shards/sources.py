"""From a folder, a pattern or a list of these to the tars that they name."""

import glob
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from braceexpand import braceexpand

from timix_pl.core.errors import DataError
from timix_pl.core.files import nearest_path
from timix_pl.data.remote.folders import find_remote_tars
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.manifest import MANIFEST_NAME, UNFINISHED_NAME, Tars, read_manifest

PIPE = "pipe:"
"""The prefix of a shell command that is given in place of a shard."""


@dataclass(frozen=True)
class Source:
    """Tars that the user named together; ``weight`` is 1 where none was given."""

    tars: Tars
    weight: float = 1.0


def resolve_shards(spec: Any, key: str = "shards", access: RemoteAccess = RemoteAccess()) -> list[Source]:  # noqa: B008
    """Find the tars that a configuration value names.

    Args:
        spec: a folder, a tar or a pattern (``*``, ``?``, ``{000..099}``), as a path or a URL; or a list of these or of
            ``{path: ..., weight: ...}``.
        key: what the user calls ``spec``, for messages.
        access: how remote tars are read.
    Returns:
        One source per item. Its tars are sorted by name; those of a brace pattern are in the order of the braces.
    Raises:
        DataError: nothing is given, a path is missing, a pattern matches nothing, a folder is unfinished or differs from its manifest,
            a weight is not a positive number, or a source cannot be reached.
    """
    items = shard_items(spec)
    if not items:
        raise DataError(f"{key}={spec}: no shards given. Give a folder, a quoted pattern or a list of them.")
    return [_resolve_item(item, key, access) for item in items]


def shard_items(spec: Any) -> list[Any]:
    """The items of a configuration value that is a list or one item."""
    return [spec] if isinstance(spec, str | Path | Mapping) else list(spec or [])


def is_image_folder(spec: Any) -> bool:
    """Whether a configuration value names a local folder with sub-folders and without tars."""
    if not isinstance(spec, str | Path) or not (path := Path(spec).expanduser()).is_dir():
        return False
    with os.scandir(path) as entries:
        kinds = {"folder" if entry.is_dir() else "tar" for entry in entries if entry.is_dir() or entry.name.endswith(".tar")}
    return kinds == {"folder"}


def _resolve_item(item: Any, key: str, access: RemoteAccess) -> Source:
    if not isinstance(item, Mapping):
        return Source(_find_tars(str(item), key, access))
    if not {"path"} <= set(item) <= {"path", "weight"}:
        raise DataError(f"{key}: {dict(item)} must have 'path' and may have 'weight', and nothing else.")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise DataError(f"{key}: weight={weight!r} of {item['path']} must be a number above 0.")
    return Source(_find_tars(str(item["path"]), key, access), float(weight))


def _find_tars(text: str, key: str, access: RemoteAccess) -> Tars:
    if text.startswith(PIPE):
        raise DataError(f"{key}={text}: 'pipe:' runs a shell command; it is only read with `allow_pipe=True`.")
    try:
        parts = [_without_file_scheme(part) for part in braceexpand(text)]
    except ValueError:
        raise DataError(f"{key}={text}: unbalanced braces.") from None
    remote = ["://" in part for part in parts]
    if all(remote):
        return find_remote_tars(parts, key, access)
    if any(remote):
        raise DataError(f"{key}={text}: local paths and URLs in one pattern. Give them as a list.")
    return LocalTars(path for part in parts for path in _expand_path(Path(part).expanduser(), f"{key}={text}"))


def _without_file_scheme(text: str) -> str:
    for start in ("file://localhost/", "file:///"):
        if text.startswith(start):
            return os.sep + unquote(text.removeprefix(start))
    return text


def _expand_path(path: Path, given: str) -> Sequence[str | Path]:
    if path.is_dir():
        return _tars_of_folder(path, given)
    if path.is_file():
        return [path]
    if glob.has_magic(str(path)):
        paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not paths:
            fixed = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            where = f"There are no such files in {fixed}." if fixed.exists() else nearest_path(fixed)
            raise DataError(f"{given}: the pattern matches no file. {where}")
        return paths
    raise DataError(f"{given}: {path} does not exist. {nearest_path(path)}")


def _tars_of_folder(folder: Path, given: str) -> list[str]:
    if (folder / UNFINISHED_NAME).exists():
        raise DataError(f"{given}: writing the shards of this folder has not finished. Wait for it, or write them again.")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".tar"))  # sorting paths is slow
    listing = read_manifest(folder)
    if listing is not None and (differing := sorted({name for name, _ in listing.rows()}.symmetric_difference(names))):
        state = "is not listed" if (folder / differing[0]).exists() else "is missing"
        raise DataError(
            f"{given}: the folder differs from its {MANIFEST_NAME}: {differing[0]} {state}, {len(differing)} in all. "
            f"Restore the shards, or accept what is there with 'timix-data index {folder}'."
        )
    if not names:
        raise DataError(f"{given}: the folder has no .tar files. 'timix-data --help' says how to make shards.")
    start = str(folder / names[0]).removesuffix(names[0])  # a Path for each of 500,000 names would take a second
    return [start + name for name in names]
