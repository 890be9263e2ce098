"""Images as data URIs, so that a page needs no other files."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_PIXELATED_BELOW_PX = 160
_HEAT_PICTURE_PX = 448
_THUMBNAIL_PX = 128
_INFERNO = np.array([(0, 4, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])  # at 0, 1/4, ..., 1


@dataclass(frozen=True)
class Picture:
    """An image inside the page. ``pixelated``: it is so small that smooth upscaling would blur it."""

    uri: str
    width_px: int
    height_px: int
    pixelated: bool


def picture(path: Path) -> Picture:
    """Read an image file.

    Raises:
        OSError: the file is missing or no image.
    """
    with Image.open(path) as image:
        width, height = image.size
        mime = Image.MIME[image.format or "PNG"]
    return Picture(_data_uri(path.read_bytes(), mime), width, height, max(width, height) < _PIXELATED_BELOW_PX)


def thumbnail(path: Path) -> Picture:
    """The image with sides of at most 128 pixels, as a JPEG, because a page may have a hundred of them.

    Raises:
        OSError: the file is missing or no image.
    """
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        small.save(buffer, "JPEG", quality=88, subsampling=0)
        return Picture(_data_uri(buffer.getvalue(), "image/jpeg"), *small.size, False)


def heat_uri(scores: np.ndarray) -> str:
    """A patch grid of scores as a tiny PNG, one pixel per patch, from dark (the lowest score) to bright (the highest).

    Args:
        scores: rows by columns.
    """
    buffer = io.BytesIO()
    _heat(scores).save(buffer, format="PNG")
    return _data_uri(buffer.getvalue(), "image/png")


def heat_picture(pixels: np.ndarray, scores: np.ndarray) -> Image.Image:
    """The image, and beside it the image in grey under the heat map, with the best patch circled. Each is at least 448 pixels wide.

    Args:
        pixels: height by width by 3, uint8.
        scores: the patch grid, rows by columns.
    """
    photo = Image.fromarray(pixels)
    factor = max(1, math.ceil(_HEAT_PICTURE_PX / photo.width))
    photo = photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.BICUBIC)
    blended = Image.blend(photo.convert("L").convert("RGB"), _heat(scores).resize(photo.size, Image.Resampling.NEAREST), 0.6)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    x, y = (column + 0.5) * photo.width / scores.shape[1], (row + 0.5) * photo.height / scores.shape[0]
    radius = 0.03 * photo.width
    for colour, width in (((0, 0, 0), 5), ((255, 160, 77), 3)):
        ImageDraw.Draw(blended).ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
    both = Image.new("RGB", (2 * photo.width, photo.height))
    both.paste(photo, (0, 0))
    both.paste(blended, (photo.width, 0))
    return both


def _heat(scores: np.ndarray) -> Image.Image:
    """The heat map, one pixel per patch."""
    share = (scores - scores.min()) / max(np.ptp(scores), 1e-12)
    anchors = np.linspace(0, 1, len(_INFERNO))
    rgb = np.stack([np.interp(share, anchors, channel) for channel in _INFERNO.T], axis=-1)
    return Image.fromarray(rgb.round().astype(np.uint8))


def _data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
