"""Flickr8k and Flickr30k: a folder of photos, five captions each, lists of names as splits."""

import csv
from pathlib import Path
from typing import Annotated

from data_pipelines.files import read_lines, require_folder
from data_pipelines.layout import Argument, PhotoFolder, layout
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError


@layout("flickr")
def read_flickr(
    images: PhotoFolder,
    captions: Annotated[Path, Argument("Flickr8k.token.txt, captions.txt or results.csv", "FILE")],
    split: Annotated[Path | None, Argument("names of the photos to take, one per line (default: all)", "FILE")] = None,
) -> list[Row]:
    """Flickr8k or Flickr30k: photos, a caption file, a split file.

    Lines of captions are ``NAME#K<TAB>caption`` (``Flickr8k.token.txt``, ``results_20130124.token``), ``NAME| K| caption``
    (``results.csv``) or ``NAME,caption`` (``captions.txt``). Names in the split may lack ``.jpg``; without a split, rows have the order of
    the captions.

    Raises:
        DataError: a file or folder is missing, or the captions are in none of these forms.
    """
    require_folder(images)
    captions_of, malformed = _read_captions(captions)
    names = list(captions_of)
    if split is not None:
        name_of_stem = {Path(name).stem: name for name in names}
        listed = [line.strip() for line in read_lines(split) if line.strip()]
        names = [name_of_stem.get(Path(name).stem, name) for name in dict.fromkeys(listed)]
    return [_row(images, name, captions_of.get(name, [])) for name in names] + malformed


def _row(images: Path, name: str, captions: list[str]) -> Row:
    return Row(Path(name).stem, images / name, captions=tuple(captions), extra={"source": "flickr", "file_name": name})


def _read_captions(path: Path) -> tuple[dict[str, list[str]], list[Row]]:
    """Captions by file name, and a row with a problem for each malformed line."""
    captions_of: dict[str, list[str]] = {}
    malformed = []
    num_fields, records = _split_lines(path)
    for number, fields in enumerate(records, 1):
        if len(fields) == num_fields:
            name = fields[0].strip()
            captions_of.setdefault(name.rpartition("#")[0] or name, []).append(fields[-1])
        elif any(fields):
            malformed.append(Row(f"{path.name}-{number}").failed("malformed caption line", repr(fields)))
    return captions_of, malformed


def _split_lines(path: Path) -> tuple[int, list[list[str]]]:
    """How many fields a line should have, and the fields of each; the name is the first, the caption the last."""
    lines = read_lines(path)
    if "\t" in lines[0]:
        return 2, [line.split("\t", 1) for line in lines]
    if lines[0].startswith("image_name|"):
        return 3, [line.split("|", 2) for line in lines[1:]]
    if lines[0].startswith("image,"):
        return 2, list(csv.reader(lines[1:]))
    raise DataError(f"{path}: lines must be 'NAME#K<TAB>caption', or begin with 'image_name|' or 'image,'. The first is {lines[0][:80]!r}.")
