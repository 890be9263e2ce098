"""Whatever is done to an image's bytes, it is decoded or refused as a bad sample: no other error, no crash."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import encoded_image, random_pixels
from timix_pl.data.decode import decode_for_crop
from timix_pl.data.reader import BadSampleError

SOUND = {
    "jpg": encoded_image(random_pixels(40, 60, seed=0), "JPEG"),
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
        decoded = decode_for_crop(bytes(data[: int(kept * len(data))]), ext, smallest_px=20, max_image_px=1_000_000)
    except BadSampleError:
        return
    assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8
