"""Each stage on rows made by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.boxes import clip_box
from data_pipelines.rows import Row
from data_pipelines.stages import clean, load_images, take_part
from timix_pl.core.sample import Region


def test_take_part_keeps_about_the_asked_share_and_groups_together():
    rows = [Row(str(i), group=f"photo-{i // 2}") for i in range(4000)]
    val = {row.key for row in take_part(rows, "val", 0.2)}
    assert 0.17 < len(val) / len(rows) < 0.23
    assert all((str(i) in val) == (str(i + 1) in val) for i in range(0, 4000, 2))
    assert not list(take_part(rows, "val", 0.0)) and len(list(take_part(rows, None, 0.2))) == 4000


def test_clean_trims_texts_and_leaves_out_what_is_empty():
    regions = (Region(" a\tdog ", (0.1, 0.1, 0.5, 0.5)), Region(" ", (0, 0, 1, 1)))
    (row,) = clean([Row("a", captions=(" two\n words ", "", " \t"), regions=regions)])
    assert row.captions == ("two words",)
    assert row.regions == (Region("a dog", (0.1, 0.1, 0.5, 0.5)),)
    assert [p.reason for p in row.left_out] == ["empty caption", "empty caption", "empty phrase"]


def test_a_row_that_says_nothing_has_a_problem_and_one_with_a_problem_keeps_its_own():
    rows = clean([Row("a", captions=(" ",)), Row("b").failed("earlier")])
    assert [row.problem.reason for row in rows] == ["no caption and no region", "earlier"]


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((-0.5, 0.0, 0.5, 2.0), (0.0, 0.0, 0.5, 1.0)),
        ((0.2, 0.2, 0.2, 0.9), None),
        ((0.6, 0.1, 0.4, 0.9), None),
        ((1.1, 0.1, 1.4, 0.9), None),
        ((0.2, 0.2, 0.2 + 1e-9, 0.9), None),
        ((0.1, 0.1, float("nan"), 0.9), None),
        ((0.1, 0.1, float("inf"), 0.9), None),
    ],
)
def test_clip_box(box, clipped):
    assert clip_box(box) == clipped


@pytest.mark.parametrize(("image_format", "ext"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_known_formats_stay_byte_for_byte_whatever_their_name(tmp_path, make_image, image_format, ext):
    content = make_image(tmp_path / "a.jpg", image_format=image_format)
    (row,) = load_images([Row("a", tmp_path / "a.jpg")])
    assert (row.image, row.image_ext) == (content, ext)


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "GIF"])
def test_other_formats_become_png_without_loss(tmp_path, make_image, image_format):
    content = make_image(tmp_path / "a", image_format=image_format)
    (row,) = load_images([Row("a", tmp_path / "a")])
    before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (content, row.image))
    assert (row.image_ext, Image.open(io.BytesIO(row.image)).format) == ("png", "PNG")
    np.testing.assert_array_equal(before, after)


def test_images_that_cannot_be_used_have_a_problem(tmp_path, make_image):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "head.gif").write_bytes(make_image(tmp_path / "a.gif", image_format="GIF")[:60])
    names = ["text.jpg", "empty.jpg", "head.gif", "absent.jpg", ""]
    rows = list(load_images([Row(name, tmp_path / name) for name in names] + [Row("none")]))
    assert [row.problem.reason for row in rows] == ["undecodable image"] * 3 + ["missing image"] * 2 + ["no image"]
