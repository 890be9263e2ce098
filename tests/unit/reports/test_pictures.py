import base64
import io

import numpy as np
from PIL import Image

from timix_pl.reports.pictures import heat_uri, picture


def _decode(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_picture_carries_the_very_bytes_of_the_file(tmp_path):
    Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "a.png")
    shown = picture(tmp_path / "a.png")
    assert (shown.width_px, shown.height_px, shown.pixelated) == (64, 48, True)
    assert np.array_equal(np.asarray(_decode(shown.uri)), np.asarray(Image.open(tmp_path / "a.png")))


def test_a_large_picture_is_scaled_smoothly(tmp_path):
    Image.new("RGB", (224, 224)).save(tmp_path / "a.jpg")
    shown = picture(tmp_path / "a.jpg")
    assert shown.uri.startswith("data:image/jpeg;base64,")
    assert not shown.pixelated


def test_a_heat_map_has_a_pixel_per_patch_and_grows_brighter_with_the_score():
    scores = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]])
    image = _decode(heat_uri(scores))
    assert image.size == (3, 2)
    brightness = np.asarray(image.convert("L")).ravel()
    assert (np.diff(brightness.astype(int)) > 0).all()


def test_equal_scores_make_an_even_heat_map():
    assert len(_decode(heat_uri(np.full((2, 2), 0.5))).getcolors()) == 1
