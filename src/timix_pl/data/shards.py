"""Which tars people mean by a folder, a pattern or a list of them."""

import glob
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from timix_pl.core.errors import DataError
from timix_pl.core.files import nearest_path
from timix_pl.data.index import MANIFEST_NAME, UNFINISHED_NAME, read_manifest


@dataclass(frozen=True)
class Source:
    """Tars that people named together; ``weight`` is 1 where they gave none."""

    tars: tuple[Path, ...]
    weight: float = 1.0


def resolve_shards(spec: Any, key: str = "shards") -> list[Source]:
    """Find the tars that a configuration value means.

    Args:
        spec: a folder, a tar, a pattern (``*``, ``?``, ``{000..099}``), or a list of these or of ``{path: ..., weight: ...}``.
        key: the dotted key that ``spec`` is the value of, for messages.
    Returns:
        One source per item, tars in the order of their names (in a brace pattern: as it expands).
    Raises:
        DataError: nothing is given, a path is missing, a pattern matches nothing, a folder is unfinished or differs from its manifest,
            or a weight is not a positive number.
    """
    items = [spec] if isinstance(spec, str | Path | Mapping) else list(spec or [])
    if not items:
        raise DataError(f"{key}={spec}: no shards given. Give a folder, a quoted pattern or a list of them.")
    return [_resolve_item(item, key) for item in items]


def _resolve_item(item: Any, key: str) -> Source:
    if not isinstance(item, Mapping):
        return Source(_find_tars(str(item), key))
    if not {"path"} <= set(item) <= {"path", "weight"}:
        raise DataError(f"{key}: {dict(item)} must have 'path' and may have 'weight', and nothing else.")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise DataError(f"{key}: weight={weight!r} of {item['path']} must be a number above 0.")
    return Source(_find_tars(str(item["path"]), key), float(weight))


def _find_tars(text: str, key: str) -> tuple[Path, ...]:
    if "://" in text:
        raise DataError(f"{key}={text}: only local shards can be read. Copy or mount them, and give their folder.")
    try:
        paths = [Path(part).expanduser() for part in braceexpand(text)]
    except ValueError:
        raise DataError(f"{key}={text}: unbalanced braces.") from None
    return tuple(tar for path in paths for tar in _expand_path(path, f"{key}={text}"))


def _expand_path(path: Path, given: str) -> list[Path]:
    if path.is_dir():
        return _tars_of_folder(path, given)
    if path.is_file():
        return [path]
    if glob.has_magic(str(path)):
        tars = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not tars:
            fixed = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            where = f"There are no such files in {fixed}." if fixed.exists() else nearest_path(fixed)
            raise DataError(f"{given}: the pattern matches no file. {where}")
        return tars
    raise DataError(f"{given}: {path} does not exist. {nearest_path(path)}")


def _tars_of_folder(folder: Path, given: str) -> list[Path]:
    if (folder / UNFINISHED_NAME).exists():
        raise DataError(f"{given}: writing the shards of this folder has not finished. Wait for it, or write them again.")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".tar"))  # sorting paths is slow
    listing = read_manifest(folder)
    if listing is not None and (differing := sorted({name for name, *_ in listing.rows()}.symmetric_difference(names))):
        state = "is not listed" if (folder / differing[0]).exists() else "is missing"
        raise DataError(
            f"{given}: the folder differs from its {MANIFEST_NAME}: {differing[0]} {state}, {len(differing)} in all. "
            f"Restore the shards, or accept what is there with 'timix-data index {folder}'."
        )
    if not names:
        raise DataError(f"{given}: the folder has no .tar files. 'timix-data --help' says how to make shards.")
    return [folder / name for name in names]
