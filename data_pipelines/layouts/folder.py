"""Any folder of images with text beside them: ``NAME.txt``, ``NAME.json`` or both."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from data_pipelines.files import read_json, read_lines, require_folder
from data_pipelines.layout import Argument, layout
from data_pipelines.rows import Problem, Row
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Group:
    """Files of one name; the name is a path below the folder, without its suffix."""

    name: str
    image: Path | None
    text: Path | None
    json: Path | None


@layout("folder")
def read_folder(folder: Annotated[Path, Argument("the folder; sub-folders are read too", "DIR")], /) -> Iterator[Row]:
    """any folder of images with NAME.txt or NAME.json beside NAME.jpg.

    Rows come by path. Each line of ``NAME.txt`` is a caption; ``NAME.json`` has the form of a shard's JSON.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    return map(_row, group_files(folder))


def group_files(folder: Path) -> list[Group]:
    """Images with the files beside them, and files without an image, by name. Hidden files are passed over.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    require_folder(folder)
    by_name: dict[str, dict[str, Path]] = defaultdict(dict)
    for parent, _, file_names in os.walk(folder):
        for file_name in sorted(file_names):
            path = Path(parent, file_name)
            if not file_name.startswith(".") and path.suffix.lower() in (*IMAGE_SUFFIXES, ".txt", ".json"):
                by_name[path.relative_to(folder).with_suffix("").as_posix()][path.suffix.lower()] = path
    groups = []
    for name, files in sorted(by_name.items()):
        images: list[Path | None] = [files[suffix] for suffix in IMAGE_SUFFIXES if suffix in files]
        groups += [Group(name, image, files.get(".txt"), files.get(".json")) for image in images or [None]]
    if not any(group.image for group in groups):
        raise DataError(f"{folder}: no image in this folder or below it ({', '.join(IMAGE_SUFFIXES)}).")
    return groups


def _row(group: Group) -> Row:
    row = Row(group.name, group.image)
    try:
        if group.text:
            row = replace(row, captions=tuple(line for line in read_lines(group.text) if line.strip()))
        return _with_fields(row, read_json(group.json)) if group.json else row
    except DataError as error:
        return row.failed("unreadable side-car", str(error))


def _with_fields(row: Row, fields: Any) -> Row:
    """``captions`` or ``caption``, where given, replace the row's; ``regions`` are added; all other fields go to ``extra``."""
    if not isinstance(fields, dict):
        return row.failed("malformed side-car", "the JSON must be an object")
    extra = dict(fields)
    caption, captions, entries = extra.pop("caption", None), extra.pop("captions", None), extra.pop("regions", [])
    captions = captions or ([caption] if caption else list(row.captions))
    if not (isinstance(entries, list) and isinstance(captions, list) and all(isinstance(text, str) for text in captions)):
        return row.failed("malformed side-car", "captions must be a list of strings, regions a list of objects")
    regions, malformed = [], []
    for entry in entries:
        try:
            x0, y0, x1, y1 = (float(v) for v in entry["bbox_xyxy_norm"])
            regions.append(Region(str(entry["phrase"]), (x0, y0, x1, y1)))
        except (LookupError, TypeError, ValueError) as error:
            malformed.append(Problem("malformed region", f"{entry!r} ({error!r})"))
    return replace(row, captions=tuple(captions), regions=tuple(regions), extra=extra, left_out=tuple(malformed))
