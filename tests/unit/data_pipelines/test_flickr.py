"""Flickr8k and Flickr30k in each of the forms in which their captions are published."""

import pytest

from data_pipelines.layouts.flickr import read_flickr
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError

CAPTIONS = {
    "token": "10_a.jpg#0\tA dog , running .\n10_a.jpg#1\tOne\u2028dog\n20_b.jpg#0\tA cat | sits\n30_c.jpg#0\tNobody\n",
    "pipe": "image_name| comment_number| comment\n"
    "10_a.jpg| 0| A dog , running .\n10_a.jpg| 1| One\u2028dog\n20_b.jpg| 0| A cat | sits\n30_c.jpg| 0| Nobody\n",
    "csv": 'image,caption\n10_a.jpg,"A dog , running ."\n10_a.jpg,One\u2028dog\n20_b.jpg,A cat | sits\n30_c.jpg,Nobody\n',
}


@pytest.fixture
def collection(tmp_path, make_image):
    for i, name in enumerate(["10_a.jpg", "20_b.jpg", "30_c.jpg"]):
        make_image(tmp_path / "Images" / name, seed=i)
    return tmp_path


@pytest.mark.parametrize("form", CAPTIONS)
def test_each_published_form_gives_the_same_samples(collection, read_shards, form):
    (collection / "captions").write_text(CAPTIONS[form], encoding="utf-8")
    account = make_shards(read_flickr(collection / "Images", collection / "captions"), collection / "out")
    samples = read_shards(collection / "out")
    assert {key: s["captions"] for key, s in samples.items()} == {
        "10_a": ["A dog , running .", "One dog"],
        "20_b": ["A cat | sits"],
        "30_c": ["Nobody"],
    }
    assert samples["10_a"]["text"] == "A dog , running ."
    assert samples["10_a"]["image"] == (collection / "Images" / "10_a.jpg").read_bytes()
    assert (account.num_samples, account.rows_left_out, account.parts_left_out) == (3, {}, {})


@pytest.mark.parametrize("split", ["30_c.jpg\n10_a.jpg\n", "30_c\r\n10_a\r\n\r\n"])
def test_a_split_file_chooses_and_orders(collection, split):
    (collection / "captions").write_text(CAPTIONS["token"], encoding="utf-8")
    (collection / "split.txt").write_text(split)
    rows = read_flickr(collection / "Images", collection / "captions", collection / "split.txt")
    assert [row.key for row in rows] == ["30_c", "10_a"]


def test_bad_rows_are_counted_and_named(collection, read_shards, read_skipped):
    tokens = CAPTIONS["token"] + "gone.jpg#0\tA ghost\nno tab here\n20_b.jpg#1\t   \n"
    (collection / "captions").write_text(tokens, encoding="utf-8")
    (collection / "Images" / "30_c.jpg").write_bytes(b"not an image")
    (collection / "split.txt").write_text("10_a.jpg\n20_b.jpg\n30_c.jpg\ngone.jpg\nunknown.jpg\n")
    account = make_shards(read_flickr(collection / "Images", collection / "captions", collection / "split.txt"), collection / "out")
    assert list(read_shards(collection / "out")) == ["10_a", "20_b"]
    assert read_skipped(collection / "out") == [
        ("20_b", "part", "empty caption"),
        ("30_c", "image", "undecodable image"),
        ("gone", "image", "missing image"),
        ("unknown", "image", "no caption and no region"),
        ("captions-6", "image", "malformed caption line"),
    ]
    assert account.rows_left_out.total() == 4


def test_an_unknown_form_is_refused_with_its_first_line(collection):
    (collection / "captions").write_text("<html>\n")
    with pytest.raises(DataError, match="The first is '<html>'"):
        read_flickr(collection / "Images", collection / "captions")


@pytest.mark.real_data
def test_flickr8k_as_published(real_data, tmp_path, read_shards):
    folder = real_data / "flickr8k"
    rows = read_flickr(folder / "Images", folder / "Flickr8k.token.txt", folder / "Flickr_8k.devImages.txt")
    account = make_shards(rows, tmp_path / "out")
    samples = read_shards(tmp_path / "out")
    assert (account.num_samples, account.rows_left_out.total()) == (1000, 0)
    assert all(len(s["captions"]) == 5 for s in samples.values())
    name = "2090545563_a4e66ec76b"
    token_lines = (folder / "Flickr8k.token.txt").read_text().splitlines()
    expected = [line.split("\t")[1] for line in token_lines if line.startswith(name)]
    assert samples[name]["captions"] == [" ".join(text.split()) for text in expected]
    assert samples[name]["image"] == (folder / "Images" / f"{name}.jpg").read_bytes()
