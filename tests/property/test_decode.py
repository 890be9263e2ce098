"""Whatever is done to an image's bytes, it is decoded or refused as a bad sample; whatever crop is drawn, enough of it is decoded."""

from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tiny import encoded_image, random_pixels
from timix_pl.data.augment import crop_fills, crop_pixels, random_crop
from timix_pl.data.decode import EncodedImage
from timix_pl.data.reader import BadSampleError

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


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    orientation=st.integers(1, 8),
    size_px=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted),
    number=st.integers(0, 1000),
)
def test_a_crop_has_the_pixels_of_the_target_unless_the_original_lacks_them(height, width, orientation, size_px, scale, number):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = EncodedImage(encoded_image(np.zeros((height, width, 3), np.uint8), exif=exif.tobytes()), "jpg", max_image_px=10**6)
    crop = random_crop(encoded.width / encoded.height, scale, (0.75, 4 / 3), False, number)
    decoded = encoded.decode(partial(crop_fills, crop, size_px))
    rows, columns = crop_pixels(crop, *decoded.shape[:2])
    if decoded.shape[:2] == (encoded.height, encoded.width):
        assert decoded.shape[:2] == ((width, height) if orientation > 4 else (height, width))
    else:
        assert rows.stop - rows.start >= size_px[0] and columns.stop - columns.start >= size_px[1]
    assert not crop_fills(crop, size_px, -(-decoded.shape[0] // 2), -(-decoded.shape[1] // 2)) or decoded.shape[0] * 8 <= encoded.height + 7
