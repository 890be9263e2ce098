"""The command as people type it."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from data_pipelines.cli import main
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.data.shards.writer import ShardWriter

COMMANDS = ["flickr", "coco", "visual-genome", "table", "img2dataset", "folder", "index", "inspect"]


@pytest.fixture
def photos(tmp_path, make_image):
    for i in range(5):
        make_image(tmp_path / "photos" / f"{i}.jpg", seed=i)
        (tmp_path / "photos" / f"{i}.txt").write_text(f"photo {i}" if i else "")
    return tmp_path / "photos"


def test_help_names_every_command_and_imports_nothing_slow():
    code = "import sys, data_pipelines.cli as c; print(c.build_parser()[0].format_help()); print(sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"\n    {command}" in output for command in COMMANDS)
    assert not any(f"'{module}'" in output for module in ("torch", "numpy", "PIL", "pyarrow", "tqdm"))


def test_every_layout_is_quick_to_import():
    code = """if True:
        import importlib, pkgutil, sys
        from data_pipelines import layouts, rows
        for layout in pkgutil.iter_modules(layouts.__path__, "data_pipelines.layouts."):
            importlib.import_module(layout.name)
            print(layout.name)
        print(sorted({"torch", "numpy", "PIL", "pyarrow", "tqdm"} & sys.modules.keys()))"""
    *names, slow = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "data_pipelines.layouts.coco" in names and slow == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert command in capsys.readouterr().out


def test_folder_end_to_end(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["folder", str(photos), "--out", str(out), "--samples-per-shard", "3"]) == 0
    assert [len(tar.index()) for tar in resolve_shards(out)[0].tars] == [3, 1]
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 4 samples written",
        "  1 image left out: 1 no caption and no region",
        f"  one by one in {out / 'skipped.jsonl'}",
    ]


def test_train_and_val_parts_are_disjoint_and_complete(photos, tmp_path, read_shards):
    for part in ("train", "val"):
        assert main(["folder", str(photos), "--out", str(tmp_path / part), "--part", part, "--val-frac", "0.5"]) == 0
    train, val = (read_shards(tmp_path / part) for part in ("train", "val"))
    assert sorted([*train, *val]) == ["1", "2", "3", "4"]


def test_a_folder_with_shards_is_kept_unless_overwrite(photos, tmp_path, capsys):
    command = ["folder", str(photos), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main(command) == 2
    assert "already has shard-000000.tar" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["folder", "{tmp}/nope"], "{tmp}/nope: no such folder."),
        (["flickr", "--images", "{tmp}", "--captions", "{tmp}/no.txt"], "{tmp}/no.txt: cannot be read"),
        (["coco", "--images", "{tmp}"], "COCO: give the captions JSON"),
        (["table", "{tmp}/no.csv"], "{tmp}/no.csv: cannot be read"),
        (["folder", "{tmp}/photos", "--samples-per-shard", "0"], "samples_per_shard=0"),
    ],
)
def test_wrong_input_is_one_message_exit_2_and_nothing_written(photos, tmp_path, capsys, command, message):
    assert main([word.format(tmp=tmp_path) for word in command] + ["--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("timix-data: " + message.format(tmp=tmp_path)) and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["folder"], ["folder", "x", "--out", "y", "--val-frac", "2"], ["fodler"]])
def test_typing_mistakes_exit_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_index_repairs_a_folder_whose_shards_changed(tmp_path, capsys):
    with ShardWriter(tmp_path / "s", samples_per_shard=1) as writer:
        for i in range(3):
            writer.write(str(i), b"image", "jpg")
    (tmp_path / "s" / "shard-000001.tar").unlink()
    assert main(["index", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 's'}: 2 samples in 2 shards\n"
    assert len(resolve_shards(tmp_path / "s")[0].tars) == 2
    assert main(["index", str(tmp_path / "nope-*.tar")]) == 2
    assert main(["index", "s3://bucket/train"]) == 2
    assert "matches no file" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_not_utf8_are_printed_with_escapes(photos, tmp_path, encoding):
    name = os.fsdecode(b"Hund-gr\xf6\xdfer")  # Latin-1
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for ext, content in (("jpg", (photos / "1.jpg").read_bytes()), ("png", b"second of both")):
            for stem in (name, "größer"):
                member = tarfile.TarInfo(f"{stem}.{ext}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for words in (["index", "--jobs", "1"], ["inspect", "--html", str(tmp_path / "page.html")]):
        command = [sys.executable, "-m", "data_pipelines.cli", *words, str(tmp_path / "x.tar")]
        done = subprocess.run(
            command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
        assert b"Hund-gr\\udcf6\\udcdfer.png" in done.stdout
    assert "Hund-gr\\udcf6\\udcdfer.png" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_photo_whose_name_is_not_utf8_is_written_down_where_it_is_left_out(photos, tmp_path):
    (photos / os.fsdecode(b"gr\xf6\xdfer.jpg")).write_bytes((photos / "1.jpg").read_bytes())  # without a caption
    assert main(["folder", str(photos), "--out", str(tmp_path / "out")]) == 0
    keys = [json.loads(line)["key"] for line in (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert os.fsdecode(b"gr\xf6\xdfer") in keys
