"""The same pairs as TSV, CSV and Parquet."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.layouts.table import read_table
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError

PAIRS = [("img/a.jpg", 'a 19" wheel, new'), ("img/b.jpg", '"quoted start of a caption'), ("img/c.jpg", "ünï")]


def write_table(path, pairs):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": list(range(len(pairs))), "title": [p[1] for p in pairs], "filepath": [p[0] for p in pairs]}), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("title", "filepath"), *((caption, image) for image, caption in pairs)])
    else:
        path.write_text("".join(f"{image}\t{caption}\n" for image, caption in [("filepath", "title"), *pairs]), encoding="utf-8")
    return path


@pytest.fixture
def collection(tmp_path, make_image):
    for i, (name, _) in enumerate(PAIRS):
        make_image(tmp_path / name, seed=i)
    return tmp_path


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
def test_each_kind_of_table_gives_the_same_samples(collection, read_shards, kind):
    table = write_table(collection / f"t.{kind}", PAIRS)
    make_shards(read_table([table]), collection / "out")
    samples = read_shards(collection / "out")
    assert [(s["file_name"], s["text"]) for s in samples.values()] == PAIRS
    assert list(samples) == ["000000000", "000000001", "000000002"]
    assert samples["000000001"]["image"] == (collection / "img" / "b.jpg").read_bytes()


def test_a_table_without_header_takes_numbers(collection):
    (collection / "t.tsv").write_text("a dog\timg/a.jpg\na cat\timg/b.jpg\n")
    rows = list(read_table([collection / "t.tsv"], "1", "0", header=False))
    assert [(row.image, row.captions) for row in rows] == [
        (collection / "img" / n, (c,)) for n, c in [("a.jpg", "a dog"), ("b.jpg", "a cat")]
    ]


def test_a_quoted_tsv(collection):
    (collection / "t.tsv").write_text('filepath\ttitle\nimg/a.jpg\t"a ""big"" dog"\n')
    (row,) = read_table([collection / "t.tsv"], quoted=True)
    assert row.captions == ('a "big" dog',)


def test_several_tables_share_one_folder_of_images_and_keys_go_on(collection, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("tables")
    tables = [write_table(elsewhere / "a.csv", PAIRS[:2]), write_table(elsewhere / "b.csv", PAIRS[2:])]
    rows = list(read_table(tables, images=collection))
    assert [row.key for row in rows] == ["000000000", "000000001", "000000002"]
    assert all(row.image.exists() for row in rows)


def test_bad_rows_are_counted_and_named(collection, read_skipped):
    table = write_table(collection / "t.parquet", [*PAIRS, (None, "no path"), ("img/a.jpg", None), ("img/zzz.jpg", "gone")])
    make_shards(read_table([table]), collection / "out")
    reasons = ["no image", "no caption and no region", "missing image"]
    assert read_skipped(collection / "out") == [(f"00000000{i}", "image", reason) for i, reason in enumerate(reasons, 3)]


def test_a_short_line_is_a_row_without_caption(collection):
    (collection / "t.tsv").write_text("filepath\ttitle\nimg/a.jpg\n\nimg/b.jpg\tb\n")
    assert [row.captions for row in read_table([collection / "t.tsv"])] == [("",), ("b",)]


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
def test_a_missing_column_is_refused_with_those_there_are(collection, kind):
    table = write_table(collection / f"t.{kind}", PAIRS)
    with pytest.raises(DataError, match=r"no column 'caption'\. Choose among: .*title"):
        read_table([table], "filepath", "caption")


@pytest.mark.parametrize(
    ("name", "message"), [("t.xlsx", "must be .tsv, .csv or .parquet"), ("t.csv", "cannot be read"), ("p.parquet", "cannot")]
)
def test_other_files_are_refused(tmp_path, name, message):
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=message):
        read_table([tmp_path / name])
