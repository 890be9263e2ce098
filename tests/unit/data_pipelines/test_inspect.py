"""What timix-data inspect says of shards, against what was written to them."""

import base64
import io
import json
import re
import tarfile
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data_pipelines.cli import main
from data_pipelines.inspection import inspect_shards
from timix_pl.core.sample import Region
from timix_pl.data.shards import index as index_module
from timix_pl.data.shards.writer import ShardWriter

BOX = (0.25, 0.5, 0.75, 1.0)


class _Page(HTMLParser):
    """Tags with their attributes, and the text outside of <style>."""

    def __init__(self, html):
        super().__init__()
        self.tags, self._texts, self._inside = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_data(self, data):
        if self._inside[-1:] != ["style"]:
            self._texts.append(data)


@pytest.fixture
def shards(tmp_path, make_image):
    """Forty samples of widths 20 to 59 in four shards; every second has a region; captions of 1 to 40 words."""
    with ShardWriter(tmp_path / "shards", samples_per_shard=10) as writer:
        for number in range(40):
            image_format, ext = ("PNG", "png") if number % 4 == 0 else ("JPEG", "jpg")
            image = make_image(tmp_path / "image", seed=number, size_px=(20 + number, 30), image_format=image_format)
            regions = [Region(f"thing {number}", BOX)] if number % 2 else []
            writer.write(f"s{number}", image, ext, captions=["word " * (number + 1)], regions=regions)
    return tmp_path / "shards"


def run(capsys, *words):
    assert main(["inspect", *map(str, words)]) == 0
    return capsys.readouterr().out


def row(out, label):
    (line,) = [line for line in out.splitlines() if line.startswith(label)]
    return line[len(label) :].split()


def test_figures_are_those_of_the_samples(shards, capsys):
    out = run(capsys, shards)
    assert f"{shards}: 40 samples in 4 shards, " in out and "looked at all 40 samples" in out and "no problems" in out
    assert row(out, "format") == ["JPEG", "75.0%,", "PNG", "25.0%"]
    assert (row(out, "with captions"), row(out, "with regions")) == (["100.0%"], ["50.0%"])
    for label, values in (
        ("image width, px", np.arange(20, 60)),
        ("image height, px", np.full(40, 30)),
        ("words per caption", np.arange(1, 41)),
        ("characters per caption", np.arange(1, 41) * 5 - 1),
        ("regions per sample", np.arange(40) % 2),
    ):
        ordered = np.sort(values)
        expected = [ordered[place] for place in (0, 1, 19, 37, 39)]  # the 2nd, 20th and 38th of 40
        assert row(out, label) == [str(value) for value in expected]


def test_a_few_samples_are_spread_evenly_over_all_shards(shards, capsys):
    out = run(capsys, shards, "--samples", "4")
    assert "looked at 4 samples, spread evenly" in out
    assert row(out, "image width, px") == ["25", "25", "35", "55", "55"]  # the middles of four tens: 5, 15, 25, 35


def test_no_more_shards_are_opened_than_samples_are_looked_at(shards, monkeypatch):
    opened = []
    monkeypatch.setattr(index_module.np, "load", lambda path, load=np.load: opened.append(path) or load(path))
    inspect_shards([str(shards)], num_samples=2, with_pictures=False)
    assert len(set(opened)) == 2


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_damaged(path, make_image):
    photo = make_image(path.parent / "image")
    members = [
        ("a.jpg", photo),
        ("a.txt", b"fine"),
        ("b.jpg", photo[: len(photo) * 2 // 3]),
        ("b.txt", b"b"),
        ("c.jpg", b"nonsense"),
        ("d.jpg", photo),
    ]
    members += [("e.jpg", photo), ("e.txt", b"\xff"), ("f.txt", b"no image"), ("a.png", b"second"), ("../x.jpg", photo)]
    return write_tar(path, members)


def test_problems_are_counted_by_reason_with_their_places(tmp_path, make_image, capsys):
    out = run(capsys, write_damaged(tmp_path / "x.tar", make_image))
    assert "3 of the samples looked at cannot be used:" in out and "3 things in all shards that the indexes leave out:" in out
    for reason, place in (
        ("the image has no known format", "x.tar: c"),
        ("no caption and no usable region", "x.tar: d"),
        ("the caption is not UTF-8 text", "x.tar: e"),
        ("no image (jpg, jpeg, png, webp); the sample is left out", "x.tar: f"),
        ("its sample already has such a member; this one is ignored", "x.tar: a.png"),
        ("the member is left out", "x.tar: ../x.jpg"),
    ):
        assert re.search(rf"^ +1  .*{re.escape(reason)}.*\(such as {re.escape(place)}\)$", out, re.M)


def test_regions_that_training_refuses_are_reported_with_the_reason(tmp_path, make_image, capsys):
    """What is left is what training takes: one sample of the four, and none of the first, whose boxes are in pixels."""
    image = make_image(tmp_path / "image", size_px=(200, 100))
    pixels, good, mute = ("a dog", [20, 10, 150, 90]), ("a cat", BOX), (" ", BOX)
    members = []
    for key, captions, regions in (("a", ["a"], [pixels] * 2), ("b", [], [pixels]), ("c", [], [good, mute]), ("d", ["d"], [])):
        described = [{"phrase": phrase, "bbox_xyxy_norm": box} for phrase, box in regions]
        members += [(f"{key}.jpg", image), (f"{key}.json", json.dumps({"captions": captions, "regions": described}).encode())]
    write_tar(tmp_path / "x.tar", members)
    out = run(capsys, tmp_path / "x.tar", "--html", tmp_path / "page.html")
    assert "no problems" not in out and row(out, "with regions") == ["25.0%"]
    for title, reason, count, place in (
        ("4 regions of the samples looked at cannot be used", "box empty, outside the image, or in pixels", 3, "x.tar: a"),
        ("4 regions of the samples looked at cannot be used", "empty phrase", 1, "x.tar: c"),
        ("1 of the samples looked at cannot be used", "no caption and no usable region", 1, "x.tar: b"),
    ):
        assert f"{title}:" in out and f"{title}:" in _Page((tmp_path / "page.html").read_text()).text
        assert re.search(rf"^ +{count}  {reason} \(such as {place}[;)]", out, re.M)


def test_the_page_shows_images_captions_and_boxes_and_fetches_nothing(shards, tmp_path, capsys):
    path = tmp_path / "new" / "page.html"
    assert f"samples to look at: {path}" in run(capsys, shards, "--samples", "5", "--html", path)
    html = path.read_text()
    page = _Page(html)
    assert "default-src 'none'" in html and not re.search(r"https?://", html)
    images = [attributes for tag, attributes in page.tags if tag == "image"]
    assert len(images) == 5 and all(image["href"].startswith("data:image/jpeg;base64,") for image in images)
    assert [int(image["width"]) for image in images] == [24, 32, 40, 48, 56]
    shown = Image.open(io.BytesIO(base64.b64decode(images[0]["href"].partition(",")[2])))
    assert shown.size == (24, 30)
    assert "word word word word word word" in page.text and "shard-000003.tar · s36 · 56 × 30 px" in page.text
    odd = run(capsys, shards, "--samples", "40", "--html", path)
    assert "looked at all" in odd
    page = _Page(path.read_text())
    boxes = [attributes for tag, attributes in page.tags if tag == "rect" and "over" in attributes.get("class", "")]
    assert len(boxes) == 20 and "1 thing 1" in page.text
    first = {name: float(boxes[0][name]) for name in ("x", "y", "width", "height")}
    assert first == {"x": 21 / 4, "y": 15, "width": 21 / 2, "height": 15}


def test_the_page_escapes_what_the_data_says_and_tells_of_bad_samples(tmp_path, make_image, capsys):
    write_damaged(tmp_path / "x.tar", make_image)
    with ShardWriter(tmp_path / "evil") as writer:
        writer.write("a", make_image(tmp_path / "image"), "jpg", captions=["<script>alert(1)</script>"])
    run(capsys, tmp_path / "x.tar", tmp_path / "evil", "--html", tmp_path / "page.html")
    page = _Page((tmp_path / "page.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags} and "<script>alert(1)</script>" in page.text
    assert (
        "the image cannot be decoded" in page.text and "4 of the samples looked at cannot be used:" in page.text
    )  # the cut one too, now that it is decoded


@pytest.mark.parametrize("words", [["--samples", "0"], ["--samples", "many"]])
def test_a_wrong_number_of_samples_exits_2(shards, words):
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(shards), *words])
    assert caught.value.code == 2


def test_what_cannot_be_looked_at_is_one_message(tmp_path, capsys):
    for spec, message in (
        (str(tmp_path / "nowhere"), "does not exist"),
        ("https://example.org/shards", "remote shards cannot be looked at"),
    ):
        assert main(["inspect", spec]) == 2
        assert message in capsys.readouterr().err
