"""Encoded images of every kind, sound and broken."""

import io
import struct
import warnings
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.tiny import encoded_image, random_pixels
from timix_pl.data.images.decode import EncodedImage, open_image
from timix_pl.data.shards.reader import BadSampleError

LIMIT = {"max_image_px": 10_000_000}


def decode(data, ext, smallest_px=1000):
    return EncodedImage(data, ext, **LIMIT).decode(lambda height, width: min(height, width) >= smallest_px)


def close(one, two, mean_difference=4.0):
    return one.shape == two.shape and np.abs(one.astype(float) - two.astype(float)).mean() < mean_difference


PICTURE = random_pixels(60, 90, seed=0)
GREY = np.asarray(Image.fromarray(PICTURE).convert("L"))


def save(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("image_format", "ext"), [("JPEG", "jpg"), ("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("PNG", "jpg")])
def test_colours_come_out_as_they_went_in(image_format, ext):
    options = {"quality": 95} if image_format != "PNG" else {}
    decoded = decode(encoded_image(PICTURE, image_format, **options), ext)
    assert decoded.dtype == np.uint8 and close(decoded, PICTURE)


@pytest.mark.parametrize("ext", ["jpg", "png"])
def test_greyscale_has_three_equal_channels(ext):
    decoded = decode(encoded_image(GREY, "JPEG" if ext == "jpg" else "PNG"), ext)
    assert close(decoded, np.stack([GREY] * 3, 2)) and (decoded[..., 0] == decoded[..., 2]).all()


def test_cmyk_jpeg_keeps_its_colours():
    decoded = decode(save(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95), "jpg")
    assert close(decoded, PICTURE, 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode):
    alpha = np.full((60, 90), 255, np.uint8)
    alpha[:, :45] = 0
    if mode == "RGBA":
        data, expected = save(Image.fromarray(np.dstack((PICTURE, alpha))), "PNG"), PICTURE.copy()
    elif mode == "LA":
        data, expected = save(Image.fromarray(np.dstack((GREY, alpha))), "PNG"), np.stack([GREY] * 3, 2)
    else:
        indices = np.where(alpha == 0, 0, 1).astype(np.uint8)
        image = Image.fromarray(indices, "P")
        image.putpalette([10, 20, 30, 200, 100, 50])
        data, expected = save(image, "PNG", transparency=0), np.full((60, 90, 3), (200, 100, 50), np.uint8)
    expected[:, :45] = 255
    assert close(decode(data, "png"), expected, 0.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(channels):
    image = GREY if channels == 1 else PICTURE
    _, data = cv2.imencode(".png", image.astype(np.uint16) * 257)
    expected = np.stack([GREY] * 3, 2) if channels == 1 else PICTURE[..., ::-1]
    assert close(decode(data.tobytes(), "png"), expected, 1)


UPRIGHT = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: PICTURE.transpose(1, 0, 2)[:, ::-1],
    7: PICTURE.transpose(1, 0, 2)[::-1, ::-1],
    8: PICTURE.transpose(1, 0, 2)[::-1],
}


def exif_of(orientation, endian="<"):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010E], exif[0x0112], exif[0x0131] = "a description", orientation, "software"
    return exif.tobytes()


def xmp_of(orientation):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation, endian):
    data = save(Image.fromarray(PICTURE), "JPEG", quality=95, exif=exif_of(orientation, endian))
    upright = UPRIGHT[orientation]
    image = EncodedImage(data, "jpg", **LIMIT)
    assert (image.height, image.width) == upright.shape[:2]
    assert close(image.decode(), upright)
    assert close(np.asarray(open_image(data, **LIMIT)), upright)
    halved = image.decode(lambda height, width: height >= upright.shape[0] // 2 and width >= upright.shape[1] // 2)
    assert close(halved, np.asarray(Image.fromarray(upright).resize((upright.shape[1] // 2, upright.shape[0] // 2), Image.Resampling.BOX)))


@pytest.mark.parametrize("kept_by_pil", [False, True])
@pytest.mark.parametrize(
    "metadata",
    [
        {"xmp": xmp_of(6)},
        {"xmp": xmp_of(3), "exif": exif_of(8)},
        {"xmp": xmp_of(1)},
        {"exif": exif_of(0)},
        {"exif": exif_of(9)},
        {"icc_profile": bytes(70_000)},
        {"comment": b'tiff:Orientation="6"'},
    ],
)
def test_orientations_are_read_as_pil_reads_them(metadata, kept_by_pil, monkeypatch):
    if not kept_by_pil:
        monkeypatch.setattr("timix_pl.data.images.decode.open_image", lambda *_, **__: pytest.fail("PIL was asked"))
    data = save(Image.fromarray(PICTURE), "JPEG", quality=95, progressive=True, **metadata)
    assert close(decode(data, "jpg"), np.asarray(open_image(data, **LIMIT)), 1)


def test_a_thumbnail_in_an_earlier_segment_does_not_hide_the_orientation():
    data, thumbnail = (save(Image.fromarray(PICTURE), "JPEG", quality=95, exif=exif) for exif in (exif_of(6), b""))
    app13 = struct.pack(">HH", 0xFFED, len(thumbnail) + 2) + thumbnail
    assert close(decode(data[:2] + app13 + data[2:], "jpg"), UPRIGHT[6])


@pytest.mark.parametrize("place", [8, 10, 13, 14, 30, 32])
def test_an_exif_block_that_is_damaged_or_comes_twice_is_left_to_pil(place):
    data = save(Image.fromarray(PICTURE), "JPEG", quality=95, exif=exif_of(6))
    start = data.index(b"Exif")
    cut = bytearray(data)
    cut[start + place] ^= 0xFF
    content = exif_of(8)
    twice = data[: start - 4] + struct.pack(">HH", 0xFFE1, len(content) + 2) + content + data[start - 4 :]
    for changed in (bytes(cut), twice):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert close(decode(changed, "jpg"), np.asarray(open_image(changed, **LIMIT)), 1)


@pytest.mark.parametrize(
    ("size", "smallest_px", "expected"),
    [
        ((400, 600), 100, (100, 150)),
        ((400, 600), 101, (200, 300)),
        ((399, 600), 201, (399, 600)),
        ((401, 603), 100, (101, 151)),
        ((801, 1200), 100, (101, 150)),
    ],
)
def test_a_jpeg_is_decoded_at_a_half_or_less_but_not_below_what_is_needed(size, smallest_px, expected):
    picture = random_pixels(*size, seed=1)
    decoded = decode(encoded_image(picture, quality=95), "jpg", smallest_px=smallest_px)
    assert decoded.shape[:2] == expected
    assert close(decoded, np.asarray(Image.fromarray(picture).resize(decoded.shape[1::-1], Image.Resampling.BOX)))


@pytest.mark.parametrize(("image_format", "ext"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7])
def test_a_truncated_image_is_refused(image_format, ext, kept):
    data = encoded_image(random_pixels(200, 300, seed=2), image_format)
    data = data[: int(len(data) * kept)]
    with pytest.raises(BadSampleError):
        decode(data, ext)
    with pytest.raises(BadSampleError):
        open_image(data, **LIMIT)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff", b"GIF89a" + bytes(20), b"\x89PNG\r\n\x1a\n" + bytes(40)])
@pytest.mark.parametrize("ext", ["jpg", "png", "webp"])
def test_bytes_that_are_no_image_are_refused(data, ext):
    with pytest.raises(BadSampleError, match="cannot be decoded"):
        decode(data, ext)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_claims(width, height):
    """A few bytes that would unpack to gigabytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(3200, 3200), (9600, 9600), (12000, 12000), (60000, 60000)])
def test_an_image_of_too_many_pixels_is_refused_by_our_limit_and_not_by_pils(size):
    with pytest.raises(BadSampleError, match=r"`max_image_px="):
        decode(png_that_claims(*size), "png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_passed_over_or_the_sample_refused(image_format):
    sound = Image.Exif()
    sound[0x0112], sound[0x010E], sound[0x011A] = 6, "a description", 72.5
    exif = sound.tobytes()
    rng = np.random.default_rng(0)
    for kept in range(6, len(exif)):
        damaged = bytearray(exif[:kept])
        for place in rng.integers(6, kept + 1, 3):
            damaged[min(int(place), kept - 1)] = rng.integers(256)
        for content in (exif[:kept], bytes(damaged)):
            with suppress(BadSampleError):
                assert decode(save(Image.fromarray(PICTURE), image_format, exif=content), image_format.lower()).shape[2] == 3


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"note\0\0not deflated"),
        (b"iTXt", b"note\0\1\0\0\0not deflated"),
        (b"iCCP", b"icc\0\0not"),
        (b"gAMA", b""),
        (b"eXIf", b"MM"),
    ],
)
def test_damaged_chunks_of_a_png_are_passed_over_or_the_sample_refused(kind, content):
    data = save(Image.fromarray(PICTURE), "PNG")
    for place in (33, len(data) - 12):  # after the header, and before the end
        with suppress(BadSampleError):
            assert close(decode(data[:place] + png_chunk(kind, content) + data[place:], "png"), PICTURE)


def test_the_limit_is_named_and_holds_for_jpegs_too():
    with pytest.raises(BadSampleError, match=r"90 x 60 pixels.*`max_image_px=5000`"):
        EncodedImage(encoded_image(PICTURE), "jpg", max_image_px=5000)
    assert EncodedImage(encoded_image(PICTURE), "jpg", max_image_px=5400).decode().shape == (60, 90, 3)
