"""The shards of ``experiment=flickr8k``."""

import json
import os
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from data_pipelines.layouts.coco import read_coco
from data_pipelines.layouts.flickr import read_flickr
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError

SETS = ("train", "val", "regions", "grounding")
VAL_FRAC = 0.2
MARKER_NAME = "prepared.json"
FILES = {
    "captions": "flickr8k/Flickr8k.token.txt",
    "train_split": "flickr8k/Flickr_8k.trainImages.txt",
    "val_split": "flickr8k/Flickr_8k.devImages.txt",
    "coco_captions": "coco/annotations/captions_train2017.json",
    "coco_instances": "coco/annotations/instances_train2017.json",
}
FOLDERS = {"images": "flickr8k/Images", "coco_images": "coco/train2017"}


def prepare(real_data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str]) -> dict[str, Path]:
    """As ``data_pipelines.prepare_flickr8k``. The folder gets its name when all four sets are whole, so several processes may run this."""
    folder = Path(cache_dir) / "flickr8k"
    if not folder.exists():
        _make(_find(real_data_dir), folder)
    elif real_data_dir is not None and Path(real_data_dir).is_dir():
        _require_same(_find(real_data_dir), folder)
    return {name: folder / name for name in SETS}


def _find(real_data_dir: str | PathLike[str] | None) -> dict[str, Path]:
    way_out = f"Point TIMIX_REAL_DATA (or real_data_dir=) to a folder that holds {', '.join([*FILES.values(), *FOLDERS.values()])}."
    if real_data_dir is None:
        raise DataError(f"experiment=flickr8k needs real data and TIMIX_REAL_DATA is not set. {way_out}")
    found = {name: Path(real_data_dir) / relative for name, relative in (FILES | FOLDERS).items()}
    for path in found.values():
        if not path.exists():
            raise DataError(f"TIMIX_REAL_DATA={real_data_dir}: {path} is missing. {way_out}")
    return found


def _make(source: Mapping[str, Path], folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, split in (("train", source["train_split"]), ("val", source["val_split"])):
            make_shards(read_flickr(source["images"], source["captions"], split), temporary / name)
        coco = read_coco(source["coco_images"], source["coco_captions"], source["coco_instances"])
        for name, part in (("regions", "train"), ("grounding", "val")):
            make_shards(coco, temporary / name, part=part, val_frac=VAL_FRAC)
        (temporary / MARKER_NAME).write_text(_facts(source))
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_same(source: Mapping[str, Path], folder: Path) -> None:
    marker = folder / MARKER_NAME
    if not marker.exists() or marker.read_text() != _facts(source):
        data = source["captions"].parents[1]
        raise DataError(
            f"{folder}: these shards were not made from the data in {data}. Delete the folder, or set data.cache_dir to another."
        )


def _facts(source: Mapping[str, Path]) -> str:
    """What tells one copy of the data from another: the bytes of each annotation file."""
    return json.dumps({name: source[name].stat().st_size for name in FILES})
