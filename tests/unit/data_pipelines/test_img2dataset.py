"""An output folder of img2dataset in both of its image formats."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.layouts.img2dataset import read_img2dataset
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError

KEYS = ["000000000", "000000001", "000000002"]


def members(make_image, tmp_path):
    """Members of a shard of which every third URL has failed."""
    found = {}
    for i, key in enumerate(KEYS[:2]):
        fields = {
            "url": f"http://x/{i}",
            "key": key,
            "status": "success",
            "error_message": None,
            "caption": f"c {i}",
            "width": 40,
            "exif": "{}",
        }
        found[f"{key}.jpg"] = make_image(tmp_path / "tmp.jpg", seed=i)
        found[f"{key}.json"] = json.dumps(fields).encode()
        found[f"{key}.txt"] = f"caption {i}\nsecond line".encode()
    return found


def write_statuses(path):
    statuses = ["success", "success", "failed_to_download"]
    errors = [None, None, "HTTP Error 404: Not Found"]
    urls = [f"http://x/{i}" for i in range(3)]
    pq.write_table(pa.table({"url": urls, "key": KEYS, "status": statuses, "error_message": errors}), path)


@pytest.fixture(params=["webdataset", "files"])
def output(request, tmp_path, make_image):
    folder = tmp_path / "output"
    folder.mkdir()
    if request.param == "files":
        (folder / "00000").mkdir()
        for name, content in members(make_image, tmp_path).items():
            (folder / "00000" / name).write_bytes(content)
    else:
        write_tar(folder / "00000.tar", members(make_image, tmp_path))
    write_statuses(folder / "00000.parquet")
    (folder / "00000_stats.json").write_text(json.dumps({"count": 3, "successes": 2}))
    return folder


def write_tar(path, content_of):
    with tarfile.open(path, "w") as tar:
        for name, content in content_of.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_samples_keep_key_text_url_and_status(output, read_shards, tmp_path, make_image):
    make_shards(read_img2dataset(output), tmp_path / "out")
    samples = read_shards(tmp_path / "out")
    assert list(samples) == KEYS[:2]
    assert samples[KEYS[1]] == {
        "image": members(make_image, tmp_path)[f"{KEYS[1]}.jpg"],
        "ext": "jpg",
        "text": "caption 1 second line",
        "captions": ["caption 1 second line"],
        "regions": [],
        "source": "img2dataset",
        "url": "http://x/1",
        "status": "success",
    }


def test_failed_downloads_are_counted_by_status(output, read_skipped, tmp_path):
    account = make_shards(read_img2dataset(output), tmp_path / "out")
    assert read_skipped(tmp_path / "out")[-1] == (KEYS[2], "image", "failed_to_download")
    assert "404" in (tmp_path / "out" / "skipped.jsonl").read_text()
    assert account.rows_left_out["failed_to_download"] == 1


def test_a_tar_cut_off_by_a_kill_is_reported_and_the_others_are_read(tmp_path, make_image, read_shards, read_skipped):
    folder = tmp_path / "output"
    folder.mkdir()
    content_of = members(make_image, tmp_path)
    write_tar(folder / "00000.tar", content_of)
    write_tar(folder / "00001.tar", {name.replace("00000000", "00010000"): content for name, content in content_of.items()})
    (folder / "00000.tar").write_bytes((folder / "00000.tar").read_bytes()[:3000])
    make_shards(read_img2dataset(folder), tmp_path / "out")
    assert list(read_shards(tmp_path / "out")) == ["000100000", "000100001"]
    assert read_skipped(tmp_path / "out") == [("00000.tar", "image", "broken tar")]


def test_bad_members_are_reported(tmp_path, make_image, read_skipped):
    folder = tmp_path / "output"
    folder.mkdir()
    content_of = members(make_image, tmp_path)
    content_of |= {"a.jpg": b"", "a.txt": b"text", "b.jpg": content_of[f"{KEYS[0]}.jpg"], "b.json": b"{", "c.txt": b"alone"}
    content_of |= {"d.jpg": content_of["b.jpg"], "d.json": b'{"caption": null}'}
    write_tar(folder / "00000.tar", content_of)
    make_shards(read_img2dataset(folder), tmp_path / "out")
    assert [(key, reason) for key, what, reason in read_skipped(tmp_path / "out") if what == "image"] == [
        ("a", "undecodable image"),
        ("b", "malformed side-car"),
        ("d", "no caption and no region"),
        ("00000.tar", "incomplete sample"),
    ]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no image in this folder"):
        read_img2dataset(tmp_path)
