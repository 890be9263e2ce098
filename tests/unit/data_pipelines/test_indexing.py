"""Indexes of many shards: in parallel, again after a kill, and against the tars' own content."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import repeated_keys
from data_pipelines.cli import main
from data_pipelines.parallel import parallel_map
from data_pipelines.repeated_keys import RepeatedKeys, hash_keys
from timix_pl.core.errors import DataError
from timix_pl.data.shards import index as index_module
from timix_pl.data.shards.index import load_index
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.reader import ShardReader
from timix_pl.data.shards.sources import resolve_shards


def write_tar(path, *keys):
    with tarfile.open(path, "w") as tar:
        for key in keys:
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"image"))
    return path


@pytest.fixture
def shards(tmp_path):
    """Six tars of two samples each."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(6):
        write_tar(folder / f"{number}.tar", f"a{number}", f"b{number}")
    return folder


def index_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.npz"))}


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_every_process_count_gives_the_same(shards, capsys, jobs):
    assert main(["index", str(shards), "--jobs", jobs]) == 0
    assert capsys.readouterr().out == f"{shards}: 12 samples in 6 shards\n"
    manifest = json.loads((shards / "manifest.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == [f"{number}.tar" for number in range(6)]
    assert manifest["fingerprint"] == LocalTars(sorted(shards.glob("*.tar"))).manifest().fingerprint
    assert load_index(shards / "4.tar").keys.tolist() == ["a4", "b4"]


def test_valid_indexes_are_kept_changed_shards_are_scanned_and_force_scans_all(shards):
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    before = index_times(shards)
    write_tar(shards / "2.tar", "new")
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    after = index_times(shards)
    assert {name for name in before if before[name] != after[name]} == {"2.tar.index.npz"}
    assert resolve_shards(shards)[0].tars.manifest().num_samples == 11
    assert main(["index", str(shards), "--jobs", "1", "--force"]) == 0
    assert all(after[name] != made for name, made in index_times(shards).items())


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, limit_s=30.0):
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("sent", "code", "message"), [(signal.SIGKILL, -9, ""), (signal.SIGINT, 130, "the same command goes on from here")]
)
def test_a_stop_loses_only_the_shards_in_work_and_leaves_no_process(shards, sent, code, message):
    """A pipe that nobody writes to holds one of the two processes up for ever. Ctrl-C reaches all processes, a kill the first alone."""
    os.mkfifo(shards / "9.tar")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "data_pipelines.cli", "index", str(shards), "--jobs", "2"]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}  # a shell's background jobs ignore Ctrl-C
    command = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, **heard)
    wait_for(lambda: len(index_times(shards)) == 6)
    workers = children(command.pid)
    assert len(workers) == 2
    (os.killpg if sent == signal.SIGINT else os.kill)(command.pid, sent)
    error = command.communicate(timeout=30)[1]
    assert command.returncode == code and message in error and "Traceback" not in error
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers))
    assert not (shards / "manifest.json").exists()
    before = index_times(shards)
    (shards / "9.tar").unlink()
    write_tar(shards / "9.tar", "a9")
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    assert before.items() <= index_times(shards).items() and len(index_times(shards)) == 7


def _die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told_in_one_message():
    with pytest.raises(DataError, match=r"one of 2 processes was killed.*the same command goes on from here.*--jobs"):
        list(parallel_map(_die, range(3), 2))


def test_a_broken_tar_is_named_after_the_others_are_indexed(shards, capsys):
    for number in (1, 4):
        path = shards / f"{number}.tar"
        path.write_bytes(path.read_bytes()[:1500])
    assert main(["index", str(shards), "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert "2 of 6 shards cannot be indexed" in error and "1.tar: the tar is cut off" in error and "4.tar" in error
    assert len(index_times(shards)) == 4 and not (shards / "manifest.json").exists()


def test_the_whole_part_of_a_cut_tar_is_taken_only_where_asked_and_reported_every_time(shards, capsys):
    """Cut in the second sample's data."""
    path = shards / "1.tar"
    path.write_bytes(path.read_bytes()[: 512 * 3 + 3])
    assert main(["index", str(shards), "--jobs", "1"]) == 2
    assert "--accept-truncated" in capsys.readouterr().err
    for words in (["--accept-truncated"], []):  # the second run finds its index
        assert main(["index", str(shards), "--jobs", "1", *words]) == 0
        out = capsys.readouterr().out
        assert f"{path}: 1.tar: the tar is cut off or damaged after 1 members, at byte 517 of 1539; the samples after that" in out
        assert f"{shards}: 11 samples in 6 shards" in out
    assert load_index(path).keys.tolist() == ["a1"]
    assert resolve_shards(shards)[0].tars.manifest().shards.num_problems.sum() == 1
    assert main(["index", "--verify", str(shards), "--jobs", "1"]) == 0


def test_verify_names_what_differs_and_writes_nothing(shards, capsys):
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    assert main(["index", "--verify", str(shards), "--jobs", "2"]) == 0
    assert "6 shards are as their indexes say" in capsys.readouterr().out
    state = (shards / "3.tar").stat()
    write_tar(shards / "3.tar", "b3", "a3")  # of the same size, and with the time set back: only the content tells
    os.utime(shards / "3.tar", ns=(state.st_atime_ns, state.st_mtime_ns))
    (shards / "4.tar.index.npz").unlink()
    before = index_times(shards)
    assert main(["index", "--verify", str(shards), "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert "2 of 6 shards differ" in error and "3.tar: 2 samples by its index" in error and "4.tar: the shard has no index" in error
    assert index_times(shards) == before


@pytest.fixture
def swapped(shards):
    """A set whose index and manifest are those of ``3.tar`` as it was: its size and time are the same, its content is not."""
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    state = (shards / "3.tar").stat()
    write_tar(shards / "3.tar", "b3", "a3")
    os.utime(shards / "3.tar", ns=(state.st_atime_ns, state.st_mtime_ns))
    return shards


@pytest.mark.parametrize("spec", ["", "3.tar", "[0-9].tar"])
def test_what_verify_advises_mends_the_set(swapped, capsys, spec):
    assert main(["index", "--verify", str(swapped / spec), "--jobs", "1"]) == 2
    (advice,) = re.findall(r"'timix-data (.*?)'", capsys.readouterr().err)
    assert advice == f"index --force {swapped}"
    assert main([*advice.split(), "--jobs", "1"]) == 0
    assert main(["index", "--verify", str(swapped / spec), "--jobs", "1"]) == 0
    assert ShardReader([resolve_shards(swapped)[0].tars.manifest()]).name(6) == ("3.tar", "b3")


def test_where_only_the_tar_was_indexed_again_verify_and_the_reader_name_the_folder(swapped, capsys):
    assert main(["index", "--force", str(swapped / "3.tar"), "--jobs", "1"]) == 0
    advice = f"'timix-data index {swapped}'"
    for spec in (swapped, swapped / "3.tar"):
        assert main(["index", "--verify", str(spec), "--jobs", "1"]) == 2
        error = capsys.readouterr().err
        assert "3.tar: manifest.json" in error and advice in error
    reader = ShardReader([resolve_shards(swapped)[0].tars.manifest()])
    with pytest.raises(DataError, match=rf"3\.tar: .*Start the run again.*{re.escape(advice)}"):
        reader.name(6)
    assert main(["index", str(swapped), "--jobs", "1"]) == 0
    assert main(["index", "--verify", str(swapped), "--jobs", "1"]) == 0
    assert ShardReader([resolve_shards(swapped)[0].tars.manifest()]).name(6) == ("3.tar", "b3")


def test_keys_of_several_shards_are_reported(shards, capsys):
    write_tar(shards / "5.tar", "x", "a2", "b0")
    write_tar(shards / "6.tar", "a2")
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "a2: a key of both 2.tar and 5.tar" in out and "b0: a key of both 0.tar and 5.tar" in out
    assert f"{shards}: 2 keys come in more than one shard\n" in out


def test_key_hashes_do_not_depend_on_the_shard_around_them():
    short, long = np.array(["a", "bé", ""]), np.array(["a", "bé", "", "a much longer key"])
    assert hash_keys(short).tolist() == hash_keys(long)[:3].tolist()
    assert len(set(hash_keys(np.array([f"{n:09d}" for n in range(100_000)])).tolist())) == 100_000
    assert hash_keys(np.array([], np.str_)).tolist() == []


def test_repeated_keys_are_found_in_bounded_memory():
    """Of 4,000 keys in two shards, half are looked at and then a quarter; the share that is repeated stays."""
    keys = RepeatedKeys(max_hashes=1500)
    for first in (0, 1000):
        keys.add(hash_keys(np.array([str(number) for number in range(first, first + 2000)])))
    count, _ = keys.find([Path("a.tar"), Path("b.tar")], 0)
    assert keys.every == 4 and abs(count - 1000 / 4) < 60


def test_the_search_for_repeated_keys_stays_under_a_gigabyte():
    """As the docs promise; measured on a small search, in bytes per key."""
    rng = np.random.default_rng(0)
    keys = RepeatedKeys(max_hashes=1 << 18)
    tracemalloc.start()
    for _ in range(100):
        keys.add(rng.integers(0, 2**63, 5000).astype(np.uint64))
    keys.find([], 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert keys.every > 1 and peak / (1 << 18) * repeated_keys._MAX_HASHES < 1e9


def test_a_listed_shard_costs_no_look_into_its_index(shards, monkeypatch):
    assert main(["index", str(shards), "--jobs", "1"]) == 0
    for path in shards.glob("*.npz"):
        path.write_bytes(b"never opened")
    monkeypatch.setattr(index_module, "scan_tar", None)
    assert resolve_shards(shards)[0].tars.manifest().num_samples == 12
    some = LocalTars([shards / "4.tar", shards / "1.tar"]).manifest()  # of a pattern or a list
    assert [tar.name for tar in some.tars] == ["4.tar", "1.tar"] and some.num_samples == 4
