"""Images as data URIs, so that a page needs no other file."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_PIXELATED_BELOW_PX = 160
_INFERNO = np.array([(0, 4, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])  # at 0, 1/4, ..., 1


@dataclass(frozen=True)
class Picture:
    """An image inside the page; ``pixelated`` where it is so small that smooth upscaling would blur it."""

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


def heat_uri(scores: np.ndarray) -> str:
    """A patch grid of scores as a tiny PNG, one pixel a patch, from dark (its lowest score) to bright (its highest).

    Args:
        scores: rows by columns.
    """
    share = (scores - scores.min()) / max(np.ptp(scores), 1e-12)
    anchors = np.linspace(0, 1, len(_INFERNO))
    rgb = np.stack([np.interp(share, anchors, channel) for channel in _INFERNO.T], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(rgb.round().astype(np.uint8)).save(buffer, format="PNG")
    return _data_uri(buffer.getvalue(), "image/png")


def _data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
