"""Whatever is done to an image's bytes, it is decoded or refused as a bad sample; whatever crop is drawn, enough of it is decoded."""

from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tiny import encoded_image, random_pixels
from timix_pl.data.images.augment import crop_fills, random_crop
from timix_pl.data.images.decode import EncodedImage
from timix_pl.data.shards.reader import BadSampleError

EXIF = Image.Exif()
EXIF[0x0112] = 6
SOUND = {
    "jpg": encoded_image(random_pixels(40, 60, seed=0), "JPEG"),
    "jpeg": encoded_image(random_pixels(40, 60, seed=0), "JPEG", exif=EXIF.tobytes()),
    "png": encoded_image(random_pixels(40, 60, seed=0), "PNG"),
    "webp": encoded_image(random_pixels(40, 60, seed=0), "WEBP"),
}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    ext=st.sampled_from(sorted(SOUND)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    kept=st.floats(0.2, 1),
)
def test_damaged_bytes_are_decoded_or_refused(ext, changes, kept):
    data = bytearray(SOUND[ext])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        decoded = EncodedImage(bytes(data[: int(kept * len(data))]), ext, max_image_px=1_000_000).decode(lambda height, width: height >= 20)
    except BadSampleError:
        return
    assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8


def sides(crop, height, width):
    """Rows and columns of a crop, each at its nearest pixel."""
    return max(1, round(crop.y1 * height) - round(crop.y0 * height)), max(1, round(crop.x1 * width) - round(crop.x0 * width))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    orientation=st.integers(1, 8),
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    number=st.integers(0, 1000),
    factor=st.sampled_from((1, 2, 4, 8)),
    more=st.sampled_from((-1, 0, 1)),
)
def test_a_crop_has_the_pixels_of_the_target_unless_the_original_lacks_them(height, width, orientation, scale, number, factor, more):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = EncodedImage(encoded_image(np.zeros((height, width, 3), np.uint8), exif=exif.tobytes()), "jpg", max_image_px=10**6)
    upright = (width, height) if orientation > 4 else (height, width)
    crop = random_crop(upright[1] / upright[0], scale, (0.75, 4 / 3), False, number)
    target = tuple(max(1, side + more) for side in sides(crop, *(-(-side // factor) for side in upright)))
    reduced = {f: tuple(-(-side // f) for side in upright) for f in (8, 4, 2, 1)}
    large_enough = (f for f in (8, 4, 2) if all(a >= b for a, b in zip(sides(crop, *reduced[f]), target, strict=True)))
    assert encoded.decode(partial(crop_fills, crop, target)).shape[:2] == reduced[next(large_enough, 1)]
