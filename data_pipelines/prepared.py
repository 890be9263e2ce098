"""Shards of an experiment, made once from published files and then used again."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from timix_pl.core.errors import DataError

MARKER_NAME = "prepared.json"

Paths = Mapping[str, Path]


class Experiment(NamedTuple):
    """The files that an experiment needs in the folder of published data, by name, and the function that writes its shards."""

    name: str
    files: Mapping[str, str]
    folders: Mapping[str, str]
    sets: Sequence[str]
    write: Callable[[Paths, Path], None]


def prepare(experiment: Experiment, real_data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str]) -> dict[str, Path]:
    """The shard folders in ``CACHE_DIR/NAME``, which are made if needed. The folder appears only when it is complete, so several processes
    may call this at the same time.

    Raises:
        DataError: a file is missing, or the shards in ``cache_dir`` were made from other data.
    """
    folder = Path(cache_dir) / experiment.name
    if not folder.exists():
        _make(experiment, _find(experiment, real_data_dir), folder)
    elif real_data_dir is not None and Path(real_data_dir).is_dir():
        _require_same(experiment, _find(experiment, real_data_dir), folder, real_data_dir)
    return {name: folder / name for name in experiment.sets}


def _find(experiment: Experiment, real_data_dir: str | PathLike[str] | None) -> Paths:
    needed = {**experiment.files, **experiment.folders}
    way_out = f"Point TIMIX_REAL_DATA (or real_data_dir=) to a folder that holds {', '.join(needed.values())}."
    if real_data_dir is None:
        raise DataError(f"experiment={experiment.name} needs real data and TIMIX_REAL_DATA is not set. {way_out}")
    found = {name: Path(real_data_dir) / relative for name, relative in needed.items()}
    for path in found.values():
        if not path.exists():
            raise DataError(f"TIMIX_REAL_DATA={real_data_dir}: {path} is missing. {way_out}")
    return found


def _make(experiment: Experiment, source: Paths, folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        experiment.write(source, temporary)
        (temporary / MARKER_NAME).write_text(_facts(experiment, source))
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_same(experiment: Experiment, source: Paths, folder: Path, real_data_dir: str | PathLike[str]) -> None:
    marker = folder / MARKER_NAME
    if not marker.exists() or marker.read_text() != _facts(experiment, source):
        raise DataError(
            f"{folder}: these shards were not made from the data in {real_data_dir}. Delete the folder, or set data.cache_dir to another."
        )


def _facts(experiment: Experiment, source: Paths) -> str:
    """The sizes in bytes of the annotation files, which identify a copy of the data."""
    return json.dumps({name: source[name].stat().st_size for name in experiment.files})
