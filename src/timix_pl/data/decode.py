"""Encoded images to uint8 arrays: fast for training crops, exact for evaluation."""

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from timix_pl.data.reader import BadSampleError

Image.MAX_IMAGE_PIXELS = None  # PIL's own limit would come before data.max_image_px

_EXIF_ORIENTATION_SEARCH = 4096


def open_image(data: bytes, *, max_image_px: int) -> Image.Image:
    """An upright RGB image, decoded by PIL at full size; transparent pixels become white.

    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_size(image.size, max_image_px)
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            return upright.convert("RGB")
    except (BadSampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError("the image cannot be decoded: it has no known format") from error
    except Exception as error:  # damaged metadata raises whatever its parser stumbles over
        raise BadSampleError(f"the image cannot be decoded: {error or type(error).__name__}") from error


def decode_for_crop(data: bytes, image_ext: str, *, smallest_px: int, max_image_px: int) -> NDArray[np.uint8]:
    """An upright RGB image (H W 3); a JPEG perhaps at a half or a quarter of its size, if no side falls below ``smallest_px``.

    Raises:
        BadSampleError: it cannot be decoded, or has more than ``max_image_px`` pixels.
    """
    if image_ext not in ("jpg", "jpeg") or b"Exif" in data[:_EXIF_ORIENTATION_SEARCH]:
        return np.asarray(open_image(data, max_image_px=max_image_px))
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        check_size((width, height), max_image_px)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return np.asarray(open_image(data, max_image_px=max_image_px))
        factor = next((f for f in (4, 2) if min(height, width) // f >= smallest_px), 1)
        return simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1)
    except ValueError:
        return np.asarray(open_image(data, max_image_px=max_image_px))


def check_size(size_px: tuple[int, int], max_image_px: int) -> None:
    """Refuse width x height above the limit, before a pixel is decoded."""
    if size_px[0] * size_px[1] > max_image_px:
        raise BadSampleError(f"the image has {size_px[0]} x {size_px[1]} pixels, more than data.max_image_px={max_image_px}")
