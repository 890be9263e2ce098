"""Encoded images to uint8 arrays: fast for training crops, exact for evaluation."""

import io
import re
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from timix_pl.data.shards.reader import BadSampleError

Image.MAX_IMAGE_PIXELS = None  # PIL's own limit would come before data.max_image_px

_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_ORIENTATION, _SHORT = 0x0112, 3
_XMP, _XMP_ORIENTATION = b"http://ns.adobe.com/xap/1.0/\0", re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_TRANSPOSED = (5, 6, 7, 8)
_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}
"""From the stored picture to the upright one, by Exif orientation."""


def open_image(data: bytes, *, max_image_px: int) -> Image.Image:
    """An upright RGB image, decoded by PIL at full size; transparent pixels become white.

    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(image.size, max_image_px)
            return upright_rgb(image)
    except (BadSampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError("the image cannot be decoded: it has no known format") from error
    except Exception as error:  # damaged metadata raises whatever its parser stumbles over
        raise BadSampleError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as its Exif orientation means it, in RGB; transparent pixels become white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    return upright.convert("RGB")


class EncodedImage:
    """An image whose upright size is known before its pixels are: a JPEG's header says it; any other kind is decoded at once, by PIL.

    ``height`` and ``width`` are in pixels, of the upright image at full size.

    Args:
        image_ext: what the file's name ends with; only ``jpg`` and ``jpeg`` are read as JPEGs.
    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """

    def __init__(self, data: bytes, image_ext: str, *, max_image_px: int):
        self._data, self._max_image_px = data, max_image_px
        self._pixels: NDArray[np.uint8] | None = None
        if image_ext in ("jpg", "jpeg"):
            with suppress(ValueError, struct.error):
                height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
                self._orientation = jpeg_orientation(data)
                check_size((width, height), max_image_px)
                if colorspace in ("YCbCr", "RGB", "Gray"):
                    self.height, self.width = (width, height) if self._orientation in _TRANSPOSED else (height, width)
                    return
        self._pixels = self._decode_with_pil()
        self.height, self.width = self._pixels.shape[:2]

    def decode(self, suffices: Callable[[int, int], bool] = lambda height, width: False) -> NDArray[np.uint8]:
        """The upright RGB image (H W 3); a JPEG at a half, a quarter or an eighth of its size where that suffices.

        Args:
            suffices: whether an upright image of this height and width, in pixels, is large enough.
        Raises:
            BadSampleError: it cannot be decoded.
        """
        if self._pixels is not None:
            return self._pixels
        factor = next((f for f in (8, 4, 2) if suffices(-(-self.height // f), -(-self.width // f))), 1)
        height, width = (self.width, self.height) if self._orientation in _TRANSPOSED else (self.height, self.width)
        try:
            stored = simplejpeg.decode_jpeg(self._data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1)
        except ValueError:
            return self._decode_with_pil()
        return _TURNS[self._orientation](stored)

    def _decode_with_pil(self) -> NDArray[np.uint8]:
        return np.array(open_image(self._data, max_image_px=self._max_image_px))


def jpeg_orientation(data: bytes) -> int:
    """The orientation of a JPEG, 1 to 8, from its Exif block or else its XMP block; 1 where neither says it.

    Raises:
        ValueError, struct.error: the metadata is damaged, or of a kind that is left to PIL.
    Source: Exif 2.32, section 4.6; TIFF 6.0, section 2.
    """
    exif = xmp = None
    place = 2
    while (segment := struct.unpack_from(">BBH", data, place))[1] != _START_OF_SCAN:
        mark, marker, size = segment
        if mark != 0xFF or marker == 0xFF or size < 2:
            raise ValueError("not the start of a segment")
        content = data[place + 4 : place + 2 + size] if marker == _APP1 else b""
        if content.startswith(b"Exif\0\0"):
            if exif is not None:
                raise ValueError("more than one Exif block")
            exif = _tiff_orientation(content[6:])
        elif content.startswith(_XMP) and (found := _XMP_ORIENTATION.search(content)):
            xmp = int(found[1])
        place += 2 + size
    orientation = exif or xmp
    return orientation if orientation in _TURNS else 1


def _tiff_orientation(tiff: bytes) -> int:
    """The orientation that the first directory holds; 0 where it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise ValueError("not TIFF")
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for number in range(count):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * number)
        if tag == _ORIENTATION:
            if (kind, values) != (_SHORT, 1):
                raise ValueError("an orientation that is not one short integer")
            return value
    return 0


def check_size(size_px: tuple[int, int], max_image_px: int) -> None:
    """Refuse width x height above the limit, before a pixel is decoded."""
    if size_px[0] * size_px[1] > max_image_px:
        raise BadSampleError(f"the image has {size_px[0]} x {size_px[1]} pixels, more than data.max_image_px={max_image_px}")
