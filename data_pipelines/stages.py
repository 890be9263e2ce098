"""The stages between a layout and the shards: independent functions from rows to rows."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data_pipelines.boxes import clip_box
from data_pipelines.rows import Problem, Row
from timix_pl.core.sample import Region

EXT_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats that are stored unchanged. MPO is a JPEG followed by further pictures."""


def take_part(rows: Iterable[Row], part: str | None, val_frac: float) -> Iterator[Row]:
    """The rows of one part of a split. The part of a row depends only on its group.

    Args:
        part: ``train`` or ``val``; None: all rows.
        val_frac: share of the groups that are in ``val``, 0 to 1.
    """
    for row in rows:
        digest = hashlib.sha256((row.group or row.key).encode(errors="surrogateescape")).digest()
        row_part = "val" if int.from_bytes(digest[:6]) / 2**48 < val_frac else "train"
        if part in (None, row_part):
            yield row


def clean(rows: Iterable[Row]) -> Iterator[Row]:
    """Trim texts, clip boxes to the image, and drop empty ones. A row with nothing left gets a problem."""
    for row in rows:
        yield row if row.problem else _clean_row(row)


def load_images(rows: Iterable[Row]) -> Iterator[Row]:
    """Read each image and its header. JPEG, PNG and WebP bytes are not changed; other formats are converted to PNG, without loss."""
    for row in rows:
        yield row if row.problem else _load_row(row)


def _clean_row(row: Row) -> Row:
    left_out = list(row.left_out)
    captions = []
    for caption in row.captions:
        if text := " ".join(caption.split()):
            captions.append(text)
        else:
            left_out.append(Problem("empty caption", repr(caption)))
    regions = []
    for region in row.regions:
        phrase, box = " ".join(region.phrase.split()), clip_box(region.bbox_xyxy_norm)
        if phrase and box:
            regions.append(Region(phrase, box))
        else:
            reason = "box empty, outside the image, or in pixels" if phrase else "empty phrase"
            left_out.append(Problem(reason, f"{region.phrase!r} {region.bbox_xyxy_norm}"))
    row = replace(row, captions=tuple(captions), regions=tuple(regions), left_out=tuple(left_out))
    return row if captions or regions or row.extra.get("questions") else row.failed("no caption and no region")


def _load_row(row: Row) -> Row:
    if row.image is None:
        return row.failed("no image")
    try:
        content = row.image.read_bytes() if isinstance(row.image, Path) else row.image
    except (FileNotFoundError, IsADirectoryError):
        return row.failed("missing image", str(row.image))
    except OSError as error:
        return row.failed("unreadable image", str(error))
    try:
        with Image.open(io.BytesIO(content)) as image:
            ext = EXT_OF_FORMAT.get(image.format or "")
            return replace(row, image=content, image_ext=ext) if ext else replace(row, image=_to_png(image), image_ext="png")
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        reason = (
            "no known image format" if isinstance(error, UnidentifiedImageError) else error
        )  # its own text has a memory address, which would make every reason different
        return row.failed("undecodable image", f"{row.image if isinstance(row.image, Path) else row.key}: {reason}")


def _to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
