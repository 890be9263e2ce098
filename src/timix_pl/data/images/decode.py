"""Encoded images to uint8 arrays: fast for training crops, exact for evaluation."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from timix_pl.data.shards.reader import BadSampleError

Image.MAX_IMAGE_PIXELS = None  # PIL's own limit would come before max_image_px

_APP1, _START_OF_SCAN = b"\xff\xe1", b"\xff\xda"
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
    """An upright RGB image, decoded by PIL at full size. Transparent pixels become white.

    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """
    with _opened(data, max_image_px) as image:
        return upright_rgb(image)


@contextmanager
def _opened(data: bytes, max_image_px: int) -> Iterator[Image.Image]:
    """An image of which PIL has read only the header. What fails in the ``with`` block is a bad sample too."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(image.size, max_image_px)
            yield image
    except (BadSampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError("the image cannot be decoded: it has no known format") from error
    except Exception as error:  # PIL's parsers of metadata raise many kinds of errors
        raise BadSampleError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image turned as its Exif orientation says, in RGB. Transparent pixels become white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    return upright.convert("RGB")


class EncodedImage:
    """An encoded image whose size is known. Of a JPEG only the header is read until it is decoded; PIL decodes any other kind at once.

    Args:
        image_ext: the extension of the file's name; only ``jpg`` and ``jpeg`` are read as JPEGs.
    Attributes:
        height, width: of the upright image at full size, in pixels.
    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """

    def __init__(self, data: bytes, image_ext: str, *, max_image_px: int):
        self._data, self._max_image_px = data, max_image_px
        self._pixels: NDArray[np.uint8] | None = None
        if image_ext in ("jpg", "jpeg"):
            with suppress(ValueError):  # no JPEG, or a damaged one
                height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
                check_size((width, height), max_image_px)
                if colorspace in ("YCbCr", "RGB", "Gray"):
                    self._orientation = self._find_orientation()
                    self.height, self.width = self._swapped(height, width)
                    return
        self._pixels = self._decode_with_pil()
        self.height, self.width = self._pixels.shape[:2]

    def decode(self, suffices: Callable[[int, int], bool] = lambda height, width: False) -> NDArray[np.uint8]:
        """The upright RGB image (H W 3). A JPEG is decoded at a half, a quarter or an eighth of its size if that is large enough.

        Args:
            suffices: takes a height and a width of the upright image, in pixels, and returns whether it is large enough.
        Raises:
            BadSampleError: it cannot be decoded.
        """
        if self._pixels is not None:
            return self._pixels
        factor = next((f for f in (8, 4, 2) if suffices(-(-self.height // f), -(-self.width // f))), 1)
        height, width = self._swapped(self.height, self.width)
        try:
            stored = simplejpeg.decode_jpeg(self._data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1)
        except ValueError:
            return self._decode_with_pil()
        return _TURNS.get(self._orientation, _TURNS[1])(stored)

    def _find_orientation(self) -> int:
        if not _has_app1(self._data):
            return 1
        with _opened(self._data, self._max_image_px) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)

    def _swapped(self, height: int, width: int) -> tuple[int, int]:
        """From the stored to the upright height and width, and back."""
        return (width, height) if self._orientation in _TRANSPOSED else (height, width)

    def _decode_with_pil(self) -> NDArray[np.uint8]:
        return np.array(open_image(self._data, max_image_px=self._max_image_px))


def _has_app1(data: bytes) -> bool:
    """Whether a JPEG has an APP1 segment, which holds Exif or XMP; also True where its list of segments is not plain.

    Most images on the web have none, and PIL takes 0.1 ms to read a header: 4% of the time of a training crop.
    """
    place = 2
    while (marker := data[place : place + 2]) != _START_OF_SCAN:
        if marker in (_APP1, b"\xff\xff") or marker[:1] != b"\xff":
            return True
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return False


def check_size(size_px: tuple[int, int], max_image_px: int) -> None:
    """Check width x height against the limit, before a pixel is decoded.

    Raises:
        BadSampleError: the image has more pixels.
    """
    if size_px[0] * size_px[1] > max_image_px:
        raise BadSampleError(f"the image has {size_px[0]} x {size_px[1]} pixels, more than `max_image_px={max_image_px}`")
