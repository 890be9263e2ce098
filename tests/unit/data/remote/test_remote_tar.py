"""Shards behind URLs, against a real web server that is slow, cuts bodies, refuses, and is stopped and started again."""

import gc
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import obstore
import pytest
import torch

from tests.tiny import GRID, IMAGE_SIZE_PX, write_shards
from tests.web_server import WebServer
from timix_pl.core.errors import DataError
from timix_pl.data.loader import Loader
from timix_pl.data.remote import prefetch, remote_tar, transport
from timix_pl.data.remote.prefetch import Prefetcher
from timix_pl.data.remote.remote_tar import RemoteAccess, RemoteTar
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.resampled import ResampledSet, ResampledShards
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

KEY = "data.train_shards"
TARS = "/shards/shard-{000000..000003}.tar"


@pytest.fixture
def served(tmp_path):
    """Four shards on a server, in /shards, with indexes and a manifest."""
    write_shards(tmp_path / "www/shards", 30)
    server = WebServer(tmp_path / "www")
    yield server
    server.stop()


@pytest.fixture
def folder(served):
    return served.folder / "shards"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(transport, "_RETRY_PAUSES_S", (0.01, 0.02, 0.04))


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Tests before this one are no reason to start workers in another way."""
    monkeypatch.setattr(transport, "_used", False)


@pytest.fixture
def access(tmp_path):
    return RemoteAccess(tmp_path / "cache")


def shards_of(spec, access, key=KEY):
    (source,) = resolve_shards(spec, key, access)
    return source.tars


def first_shard(served, access) -> RemoteTar:
    return shards_of(f"{served.url}/shards/shard-000000.tar", access)[0]


def foreign(folder):
    """As another tool would have left the shards: no index, no manifest."""
    for path in [*folder.glob("*.npz"), folder / "manifest.json"]:
        path.unlink()


def bytes_of(descriptor) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def tokenizer(texts):
    return torch.tensor([list(text.encode().ljust(80)[:80]) for text in texts])


def pair_set(spec, access):
    stream = SampleStream(str(spec), key=KEY, seed=3, name="train", window_shards=2, access=access)
    return PairSet(stream, None, tokenizer, image_size_px=IMAGE_SIZE_PX, patch_grid=GRID, global_batch_size=8, seed=3)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("with_indexes", [True, False])
@pytest.mark.parametrize("spec", ["/shards/", TARS])
def test_batches_and_fingerprint_are_those_of_local_shards(served, folder, tmp_path, whole, with_indexes, spec):
    local = pair_set(shutil.copytree(folder, tmp_path / "local"), RemoteAccess())
    if not with_indexes:
        for path in folder.glob("*.npz"):
            path.unlink()
    remote = pair_set(served.url + spec, RemoteAccess(tmp_path / "cache", whole=whole))
    assert remote.pairs.fingerprint == local.pairs.fingerprint
    for step in (0, 3, 4):  # the 3rd holds the end of one epoch and the start of the next
        here, there = local[step], remote[step]
        assert here.images.equal(there.images) and here.keys == there.keys and here.captions == there.captions


def test_a_manifest_is_all_that_is_read_at_the_start(served, access):
    stream = SampleStream(f"{served.url}/shards", key=KEY, seed=0, name="a", window_shards=2, access=access)
    assert stream.num_samples == 30
    assert [path for _, path, _ in served.requests] == ["/shards/manifest.json"]


def test_indexes_spare_the_shards_at_the_start(served, folder, access):
    (folder / "manifest.json").unlink()
    tars = shards_of(served.url + TARS, access)
    assert tars.manifest().num_samples == 30
    assert served.gets(".tar") == [] and len(served.gets(".npz")) == 4


def test_foreign_tars_are_fetched_and_indexed_once(served, folder, access):
    foreign(folder)
    manifests = [shards_of(served.url + TARS, access).manifest() for _ in range(2)]
    assert len(served.gets(".tar")) == 4 and [*manifests[0].shards.rows()] == [*manifests[1].shards.rows()]
    assert manifests[0].fingerprint == LocalTars(sorted(folder.glob("*.tar"))).manifest().fingerprint


def test_a_remote_index_of_another_tar_is_not_used(served, folder, access):
    (folder / "manifest.json").unlink()
    (folder / "shard-000003.tar.index.npz").replace(folder / "shard-000000.tar.index.npz")
    shard = first_shard(served, access)
    assert shard.index().keys.tolist() == [f"s{number}" for number in range(8)]


def swapped(folder):
    """Shard 0 gets the bytes of shard 1; both have the same size, as tars are padded."""
    old, new = (folder / f"shard-00000{number}.tar" for number in (0, 1))
    assert old.stat().st_size == new.stat().st_size
    shutil.copy(new, old)


@pytest.mark.parametrize("whole", [True, False])
def test_a_tar_that_is_not_the_one_of_the_manifest_is_refused(served, folder, tmp_path, whole):
    swapped(folder)
    access = RemoteAccess(tmp_path / "cache", whole=whole)
    reader = ShardReader([shards_of(f"{served.url}/shards", access).manifest()])
    with pytest.raises(DataError, match=rf"{re.escape(KEY)}: {served.url}/shards/shard-000000\.tar: .*timix-data index"):
        reader[0]
    assert not list(access.cache_dir.glob("*/*.tar"))
    assert reader[9].key == "s9"


@pytest.mark.parametrize("whole", [True, False])
def test_a_tar_that_is_not_the_one_of_its_index_is_refused(served, folder, tmp_path, whole):
    (folder / "manifest.json").unlink()
    swapped(folder)
    access = RemoteAccess(tmp_path / "cache", whole=whole)
    reader = ShardReader([shards_of(served.url + TARS, access).manifest()])
    with pytest.raises(DataError, match=rf"{re.escape(KEY)}: {served.url}/shards/shard-000000\.tar: .*timix-data index"):
        reader[0]
    if whole:  # the next start makes an index of what is in the cache
        assert ShardReader([shards_of(served.url + TARS, access).manifest()])[0].key == "s8"


def test_a_shard_that_is_in_the_cache_already_is_compared_with_its_index_too(served, folder, access):
    (folder / "manifest.json").unlink()
    swapped(folder)
    shard = first_shard(served, access)
    os.close(shard.open_file())
    assert shard.index().keys.tolist()[0] == "s8"


def test_long_names_and_other_alphabets_are_read_in_ranges(served, tmp_path):
    keys = ["plain", "x" * 150, "folder/" * 20 + "deep", "straße", "./dotted"]
    for number, tar_format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(served.folder / f"{number}.tar", "w", format=tar_format) as tar:
            for key in keys:
                member = tarfile.TarInfo(f"{key}.png")
                member.size = len(key)
                tar.addfile(member, io.BytesIO(key.encode()[: member.size]))
        tars = shards_of(f"{served.url}/{number}.tar", RemoteAccess(tmp_path / "cache", whole=False))
        reader = ShardReader([tars.manifest()])
        assert [reader[row].key for row in range(len(keys))] == keys


def test_an_index_that_a_kill_left_in_the_cache_is_not_used(served, folder, access):
    shard = first_shard(served, access)
    shard._index_path.parent.mkdir(parents=True)
    for content in (b"half", (folder / "shard-000003.tar.index.npz").read_bytes()):
        shard._index_path.write_bytes(content)
        assert shard.index().keys.tolist() == [f"s{number}" for number in range(8)]


def test_no_process_ever_sees_an_index_that_does_not_fit(served, folder, access, monkeypatch):
    (folder / "manifest.json").unlink()
    (folder / "shard-000003.tar.index.npz").replace(folder / "shard-000000.tar.index.npz")
    shard, renamed = first_shard(served, access), []
    monkeypatch.setattr(remote_tar.os, "replace", lambda *paths: renamed.append(shard.local.is_file()) or os.rename(*paths))
    shard.index()
    assert renamed == [False, True], "the tar, then its index"


def test_a_sample_is_one_range_request(served, tmp_path):
    shards = shards_of(f"{served.url}/shards", RemoteAccess(tmp_path / "cache", whole=False))
    reader = ShardReader([shards.manifest()])
    sample = reader[9]
    assert sample.key == "s9" and len(sample.captions) == 2 and sample.shard == "shard-000001.tar"
    assert len(served.gets(".tar")) == 1 and served.gets(".tar")[0] is not None


def test_members_far_apart_are_read_one_by_one(served, tmp_path):
    with tarfile.open(served.folder / "x.tar", "w") as tar:
        for name, source in (("a.png", None), ("b.bin", 500_000), ("a.txt", None)):
            path = tmp_path / name
            path.write_bytes(bytes(source) if source else b"a caption")
            tar.add(path, name)
    tars = shards_of(f"{served.url}/x.tar", RemoteAccess(tmp_path / "cache", whole=False))
    reader = ShardReader([tars.manifest()])
    served.requests.clear()
    assert reader[0].captions == ("a caption",) and reader[0].image == b"a caption"
    assert all(int(wanted.split("-")[1]) - int(wanted.split("=")[1].split("-")[0]) < 1000 for wanted in served.gets(".tar"))


def test_file_urls_are_paths(folder):
    paths = sorted(map(str, folder.glob("*.tar")))
    assert [tar.location for tar in shards_of(f"file://{folder}", RemoteAccess())] == paths
    assert [tar.location for tar in shards_of(f"file://{folder}/shard-{{000000..000001}}.tar", RemoteAccess())] == paths[:2]


def test_a_cut_body_is_gone_on_with_from_where_it_ended(served, access):
    content = os.urandom(5_000_000)
    (served.folder / "big.tar").write_bytes(content)
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.cut = 1
    assert bytes_of(shard.open_file()) == content
    first, second = served.gets("big.tar")
    assert first is None and int(re.fullmatch(r"bytes=(\d+)-", second)[1]) > 1_000_000


def test_a_server_that_drops_every_body_is_put_up_with_as_long_as_it_moves(served, access):
    content = os.urandom(9_000_000)
    (served.folder / "big.tar").write_bytes(content)
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.cut = 100
    with pytest.raises(DataError, match="4 tries in a row"):
        shard.open_file()
    assert 5 < len(served.gets("big.tar")) < 10
    assert not list(access.cache_dir.glob("*/*.part"))


def test_a_server_without_ranges_sends_it_again(served, access):
    content = os.urandom(5_000_000)
    (served.folder / "big.tar").write_bytes(content)
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.cut, served.ranges = 1, False
    assert bytes_of(shard.open_file()) == content
    with pytest.raises(DataError, match=r"`whole=True`"):
        shard.read(10, 5)


def test_a_body_that_ends_early_without_an_error_is_not_taken_as_whole(served, access, monkeypatch):
    """Some proxies end a body as if it were whole."""
    shard = first_shard(served, access)

    def body(content):
        return SimpleNamespace(meta={"size": shard.num_bytes, "e_tag": None}, stream=lambda _: iter([content]), bytes=lambda: content)

    for content, said in ((b"", r"0 of \d+ bytes came"), (bytes(shard.num_bytes + 1), r"\d+ bytes came, and it has")):
        monkeypatch.setattr(obstore, "get", lambda *_, content=content, **__: body(content))
        with pytest.raises(DataError, match=said):
            shard.open_file()
        with pytest.raises(DataError, match=r"\d+ of 5 bytes came"):
            shard.read(5, 0)
    assert not shard.local.exists()


def test_missing_credentials_are_called_that(served, bucket, access, monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254.invalid")
    with pytest.raises(DataError, match="no credentials were found in the environment"):
        shards_of("s3://bucket/train", access)


@pytest.mark.parametrize("whole", [True, False])
def test_refusals_in_passing_are_waited_out(served, access, whole):
    shard = first_shard(served, access)
    served.unavailable = 3
    assert (len(bytes_of(shard.open_file())) == shard.num_bytes) if whole else (shard.read(5, 0) == b"s0.pn")


def test_a_cut_range_is_asked_for_again(served, access):
    shard = first_shard(served, access)
    served.cut = 2
    assert shard.read(2000, 100) == (served.folder / "shards/shard-000000.tar").read_bytes()[100:2100]


def test_a_server_that_is_started_again_is_waited_for(served, access, monkeypatch):
    monkeypatch.setattr(transport, "_RETRY_PAUSES_S", (0.1, 0.2, 0.4, 0.8, 1.6))
    shard = first_shard(served, access)
    served.stop()
    threading.Timer(0.5, served.start).start()
    assert len(bytes_of(shard.open_file())) == shard.num_bytes


def test_a_source_that_stays_away_stops_the_run_with_its_name(served, access):
    steps = pair_set(f"{served.url}/shards", access)
    served.stop()
    with pytest.raises(DataError, match=rf"{re.escape(KEY)}: {served.url}/shards/shard-\S+: 4 tries in a row failed.*start again") as error:
        steps[0]
    assert "\n" not in str(error.value)
    served.start()


def test_a_slow_source_is_no_error(served, access):
    served.delay_s = 0.05
    assert len(bytes_of(first_shard(served, access).open_file())) > 10_000


@pytest.mark.parametrize(("status", "said"), [(403, "access is denied"), (401, "access is denied"), (404, "there is no"), (400, "400")])
def test_what_trying_again_cannot_mend_is_not_tried_again(served, access, status, said):
    shard = first_shard(served, access)
    served.requests.clear()
    served.status = status
    with pytest.raises(DataError, match=f"{re.escape(KEY)}.*{said}"):
        shard.open_file()
    assert len(served.requests) == 1


def test_a_manifest_that_may_not_be_read_is_called_that_unless_the_tars_are_named(served, access):
    served.forbidden = "manifest.json"
    with pytest.raises(DataError, match=rf"{re.escape(KEY)}: {served.url}/shards/manifest\.json: access is denied"):
        shards_of(f"{served.url}/shards/", access)
    assert shards_of(served.url + TARS, access).manifest().num_samples == 30


def test_an_index_that_may_not_be_read_is_made_here(served, folder, access):
    (folder / "manifest.json").unlink()
    served.forbidden = ".npz"
    assert shards_of(served.url + TARS, access).manifest().num_samples == 30


def test_a_tar_that_was_uploaded_cut_is_named_by_its_url(served, folder, access):
    foreign(folder)
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError) as error:
        first_shard(served, access).index()
    said = str(error.value)
    assert said.startswith(f"{KEY}: {served.url}/shards/shard-000000.tar: the tar is cut off or damaged after")
    assert str(access.cache_dir) not in said and "pload" in said


def test_a_missing_shard_is_named_before_training(served, access):
    with pytest.raises(DataError, match=r"there is no .*shard-000004\.tar"):
        shards_of(served.url + TARS.replace("3}", "4}"), access)


def test_a_shard_of_another_size_is_refused(served, folder, access):
    shard = first_shard(served, access)
    with (folder / shard.name).open("ab") as file:
        file.write(bytes(1024))
    for read in (shard.open_file, lambda: shard.read(5, 0)):
        with pytest.raises(DataError, match=rf"{shard.num_bytes + 1024} bytes, and had {shard.num_bytes}"):
            read()
    assert not list(access.cache_dir.glob("*/*.tar"))


def test_a_changed_shard_is_fetched_anew_by_the_next_run(served, folder, access):
    (folder / "manifest.json").unlink()
    before = bytes_of(first_shard(served, access).open_file())
    (folder / "shard-000000.tar").write_bytes(before[:-512] + b"x" * 512)
    assert bytes_of(first_shard(served, access).open_file()).endswith(b"x")


def test_the_cache_stays_under_its_bound_and_drops_the_oldest(served, tmp_path):
    size = (served.folder / "shards/shard-000000.tar").stat().st_size
    access = RemoteAccess(tmp_path / "cache", max_bytes=int(size * 2.5))
    shards = shards_of(served.url + TARS, access)
    held = shards[0].open_file()
    for number in (1, 0, 2):
        os.close(shards[number].open_file())
        time.sleep(0.02)
    assert sorted(path.name for path in access.cache_dir.glob("*/*.tar")) == ["shard-000000.tar", "shard-000002.tar"]
    os.close(shards[3].open_file())
    assert len(bytes_of(held)) == size
    with ThreadPoolExecutor(8) as pool:
        for descriptor in pool.map(lambda number: shards[number % 4].open_file(), range(24)):
            assert len(bytes_of(descriptor)) > 1000
    assert sum(path.stat().st_size for path in access.cache_dir.glob("*/*.tar")) <= access.max_bytes


def test_the_cache_leaves_a_users_own_tars_alone(served, tmp_path):
    shard = first_shard(served, RemoteAccess(tmp_path / "cache"))
    own = tmp_path / "cache/photos"
    own.mkdir(parents=True)
    for name in ("y.tar", "z.part", "lock"):
        (own / name).write_bytes(bytes(shard.num_bytes))
    (tmp_path / "cache/lock").write_text("theirs")
    access = RemoteAccess(tmp_path / "cache", max_bytes=int(shard.num_bytes * 1.5))
    for tar in shards_of(served.url + TARS, access):
        os.close(tar.open_file())
    assert {path.name: path.stat().st_size for path in own.iterdir()} == dict.fromkeys(("y.tar", "z.part", "lock"), shard.num_bytes)
    assert (tmp_path / "cache/lock").read_text() == "theirs"
    assert len(list(access.cache_dir.glob("*/*.tar"))) == 2, "one of theirs, one of ours"


def test_a_shard_larger_than_the_cache_is_refused(served, tmp_path):
    with pytest.raises(DataError, match=r"`max_bytes`: the cache may hold 1e-06 GB.*`whole=False`"):
        first_shard(served, RemoteAccess(tmp_path / "cache", max_bytes=1000)).open_file()


FETCH = """
import pickle, sys, os
shard = pickle.loads(bytes.fromhex(sys.argv[1]))
print("begins", flush=True)
print(len(os.fdopen(shard.open_file(), "rb").read()))
"""


def fetching(shard):
    words = [sys.executable, "-c", FETCH, pickle.dumps(shard).hex()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "src"}, text=True)


def test_processes_of_a_machine_fetch_a_shard_once(served, access):
    shard = first_shard(served, access)
    served.delay_s = 0.3
    processes = [fetching(shard) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].split()[1] for process in processes] == [str(shard.num_bytes)] * 3
    assert len(served.gets(shard.name)) == 1


def test_a_killed_download_leaves_nothing_that_looks_whole(served, tmp_path):
    (served.folder / "big.tar").write_bytes(os.urandom(4_000_000))
    access = RemoteAccess(tmp_path / "cache", max_bytes=5_000_000)
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.delay_s = 0.5
    process = fetching(shard)
    while not list(access.cache_dir.glob("*/*.part")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not shard.local.exists() and list(access.cache_dir.glob("*/*.part"))
    served.delay_s = 0
    other = first_shard(served, RemoteAccess(tmp_path / "cache", max_bytes=4_050_000))
    os.close(other.open_file())
    assert not list(access.cache_dir.glob("*/*.part")), "what it left counts, and goes when room is needed"
    assert bytes_of(shard.open_file()) == (served.folder / "big.tar").read_bytes()


def test_the_next_window_is_there_before_it_is_needed(served, access):
    steps = pair_set(f"{served.url}/shards", access)
    assert steps.pairs.order.shards_from(0)[:4] == steps.pairs.order.sources[0]._shards(0)[0].tolist()
    steps[0]  # 8 samples of the 16 in the first window
    until = time.monotonic() + 10
    while len(list(access.cache_dir.glob("*/*.tar"))) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    served.stop()
    assert len({key for step in range(3) for key in steps[step].keys}) == 24
    served.start()


def test_the_order_of_shards_goes_on_over_the_end_of_an_epoch():
    from timix_pl.data.order import BlendedOrder, SourceOrder

    order = SourceOrder([5, 3, 4, 2, 6], seed=1, name="x", window_shards=2)
    for start in range(0, 60, 3):
        samples = order.locate(start, start + 1)[:, 1]
        shard = int(order.starts.searchsorted(samples[0], side="right")) - 1
        assert shard in order.shards_from(start)[:2]
    last = order.locate(19, 20)[0, 1]
    assert order.shards_from(19)[0] == int(order.starts.searchsorted(last, side="right")) - 1
    assert set(order.shards_from(19)[1:]) == {int(order.starts.searchsorted(n, side="right")) - 1 for n in order.locate(20, 26)[:, 1]}
    other = SourceOrder([7, 4, 9], seed=1, name="y", window_shards=1)
    both = BlendedOrder([order, other], [1, 1], seed=1)
    first_of_x = order.locate(0, sum(order.sizes[order._shards(0)[0][:4]]))[:, 1]
    first_of_y = other.locate(0, sum(other.sizes[other._shards(0)[0][:2]]))[:, 1]
    wanted = {int(order.starts.searchsorted(n, side="right")) - 1 for n in first_of_x}
    wanted |= {5 + int(other.starts.searchsorted(n, side="right")) - 1 for n in first_of_y}
    assert len(wanted) == 6 and sorted(both.shards_from(0)) == sorted(wanted)


def test_prefetching_keeps_within_the_cache(served, tmp_path):
    size = (served.folder / "shards/shard-000000.tar").stat().st_size
    shards = shards_of(served.url + TARS, RemoteAccess(tmp_path / "cache", max_bytes=int(size * 2.5)))
    prefetcher = Prefetcher()
    prefetcher.fetch(shards)
    prefetcher._thread.join(10) if prefetcher._thread else None
    assert sorted(path.name for path in (tmp_path / "cache").glob("*/*.tar")) == ["shard-000000.tar", "shard-000001.tar"]


def test_prefetching_in_rounds_keeps_no_ended_threads(served, access):
    before, prefetcher = len(prefetch._threads), Prefetcher()
    for shard in shards_of(served.url + TARS, access):
        prefetcher.fetch([shard])
        while prefetcher._thread is not None:
            time.sleep(0.01)
    gc.collect()
    assert len(prefetch._threads) <= before + 1


def test_a_prefetch_that_fails_does_not_hide_the_error(served, access):
    steps = pair_set(f"{served.url}/shards", access)
    served.status = 403
    with pytest.raises(DataError, match="access is denied"):
        steps[0]


def test_a_process_ends_while_it_still_fetches_ahead(served, access):
    (served.folder / "big.tar").write_bytes(os.urandom(30_000_000))
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.delay_s = 0.01
    code = (
        "import pickle, sys, time; from timix_pl.data.remote.prefetch import Prefetcher\n"
        "shard = pickle.loads(bytes.fromhex(sys.argv[1])); Prefetcher().fetch([shard])\n"
        "while not shard._part_path.exists(): time.sleep(0.01)"
    )
    began = time.monotonic()
    words = [sys.executable, "-c", code, pickle.dumps(shard).hex()]
    ended = subprocess.run(words, env=os.environ | {"PYTHONPATH": "src"}, capture_output=True, timeout=60, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and time.monotonic() - began < 15
    assert served.gets("big.tar") and not shard.local.exists()
    assert not list(access.cache_dir.glob("*/*.part")), "the thread ended in good order"


@pytest.mark.parametrize("whole", [True, False])
def test_loader_workers_read_remote_shards_after_their_parent_has(served, folder, tmp_path, whole):
    steps = pair_set(f"{served.url}/shards", RemoteAccess(tmp_path / "cache", whole=whole))
    first = steps[0]
    batches = list(Loader(steps, sampler=range(3), num_workers=2))
    assert batches[0].images.equal(first.images)
    local = pair_set(folder, RemoteAccess())
    assert batches[2].images.equal(local[2].images)


def test_a_fork_says_why_it_cannot_read(served, access):
    shard = first_shard(served, access)
    result, answer = os.pipe()
    if os.fork() == 0:
        try:
            shard.open_file()
        except DataError as error:
            os.write(answer, str(error).encode())
        os._exit(0)
    os.wait()
    assert b"forkserver" in os.read(result, 1000)


def test_a_member_of_absurd_size_is_not_asked_for(served, tmp_path):
    """Each image has more than 100 bytes, no text or JSON is asked for either."""
    reader = ShardReader([shards_of(served.url + TARS, RemoteAccess(tmp_path / "cache", whole=False)).manifest()], max_image_mb=1e-4)
    reader.expect(range(4), lambda: [0])
    with pytest.raises(BadSampleError, match=r"the image has .* MB, more than `max_image_mb=0\.0001`"):
        reader[0]
    assert served.gets(".tar") == []


def test_evaluation_reads_remote_shards(served, folder, access):
    there, here = EvaluationSet(f"{served.url}/shards", (32, 48), access=access), EvaluationSet(str(folder), (32, 48))
    assert len(there) == len(here) == 30
    assert all(there[number].image.equal(here[number].image) for number in (0, 29))


def stream_of(shards, steps, max_steps=3):
    return list(ResampledSet(shards, steps, 0, max_steps))


def test_a_stream_draws_the_same_from_remote_and_local_shards(served, folder, access):
    steps = pair_set(folder, RemoteAccess())
    there = stream_of(ResampledShards(served.url + TARS, key=KEY, seed=1, access=access), steps)
    here = stream_of(ResampledShards(str(folder), key=KEY, seed=1), steps)
    assert all(a.images.equal(b.images) and a.keys == b.keys and not a.problems for a, b in zip(there, here, strict=True))


def test_a_stream_stops_when_its_source_stays_away(served, folder, access):
    shards = ResampledShards(served.url + TARS, key=KEY, seed=1, access=access)
    served.stop()
    with pytest.raises(DataError, match="4 tries in a row"):
        stream_of(shards, pair_set(folder, RemoteAccess()))
    served.start()


def test_commands_run_only_where_they_are_allowed(folder, tmp_path):
    command = f"pipe:touch {tmp_path}/ran; cat {folder}/shard-{{000000..000003}}.tar"
    for make in (
        lambda: ResampledShards(command, key=KEY, seed=1),
        lambda: SampleStream(command, key=KEY, seed=1, name="a", window_shards=2),
        lambda: EvaluationSet(command, (32, 48)),
    ):
        with pytest.raises(DataError, match=r"`allow_pipe=True`"):
            make()
    assert not (tmp_path / "ran").exists()
    batches = stream_of(ResampledShards(command, key=KEY, seed=1, allow_pipe=True), pair_set(folder, RemoteAccess()))
    assert (tmp_path / "ran").exists() and all(len(batch.keys) == 8 for batch in batches)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{url}/elsewhere/", r"cannot list a folder.*manifest\.json.*\{000000\.\.000099\}\.tar"),
        ("{url}/shards/*.tar", r"cannot list a folder.*\{000000\.\.000099\}\.tar"),
        ("{url}/shards/x.tar?token=1", "addresses with"),
        ("ftp://host/x.tar", "s3://, gs://, https://, http://"),
        ("s3:///x.tar", "names no host or bucket"),
        ("{{{url},/local}}/x.tar", "local paths and URLs in one pattern"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_way_out(served, access, spec, said):
    with pytest.raises(DataError, match=f"{re.escape(KEY)}.*{said}"):
        shards_of(spec.format(url=served.url), access)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"shards": [{"num_samples": 3}]}',
        '{"shards": [{"name": "a.tar", "num_samples": "3", "num_bytes": 512, "digest": "00"}]}',
        '{"shards": [{"name": "a.tar", "num_samples": 3, "num_bytes": -512, "digest": "00"}]}',
        '{"shards": [{"name": "a.tar", "num_samples": 3, "num_bytes": 512, "digest": 5}]}',
        '{"shards": [{"name": "../a.tar", "num_samples": 3, "num_bytes": 512, "digest": "00"}]}',
        '{"shards": [{"name": "a.tar", "num_samples": 3, "num_bytes": 512}, {"name": "a.tar", "num_samples": 3, "num_bytes": 512}]}',
    ],
)
def test_a_damaged_manifest_is_refused(served, folder, access, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        shards_of(f"{served.url}/shards", access)
    with pytest.raises(DataError, match="the manifest is damaged"):
        shards_of(str(folder), access)


@pytest.fixture
def bucket(served, monkeypatch):
    """The served folder as a bucket."""
    settings = {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ENDPOINT": served.url, "ALLOW_HTTP": "true"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    transport._store.cache_clear()
    (served.folder / "bucket").mkdir()
    (served.folder / "shards").rename(served.folder / "bucket/train")
    yield served.folder / "bucket/train"
    transport._store.cache_clear()


def test_a_bucket_is_listed_and_read_with_credentials_of_the_environment(served, bucket, access):
    assert [shard.name for shard in shards_of("s3://bucket/train/*2.tar", access)] == ["shard-000002.tar"]
    served.requests.clear()
    there, here = pair_set("s3://bucket/train/", access), pair_set(bucket, RemoteAccess())
    assert served.gets(".npz") == [] and there.pairs.fingerprint == here.pairs.fingerprint
    assert there[1].images.equal(here[1].images)
    assert "Credential=id/" in served.headers["authorization"]


def test_a_bucket_that_differs_from_its_manifest_is_refused(served, bucket, access):
    content = json.loads((bucket / "manifest.json").read_text())
    content["shards"][1]["num_bytes"] += 512
    (bucket / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"shard-000001\.tar has \d+ bytes, and \d+ by its manifest"):
        shards_of("s3://bucket/train", access)
    (bucket / "shard-000002.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000002\.tar is missing, 1 in all"):
        shards_of("s3://bucket/train", access)
    (bucket / ".unfinished").touch()
    with pytest.raises(DataError, match="has not finished"):
        shards_of("s3://bucket/train", access)


def test_an_object_that_is_replaced_by_one_of_the_same_size_is_noticed(bucket, access):
    shard = shards_of("s3://bucket/train", access)[0]
    path = Path(bucket / shard.name)
    path.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="has been replaced since the run started"):
        shard.open_file()


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("web", [True, False])
def test_a_shard_that_is_replaced_after_its_first_request_is_noticed(served, bucket, access, web, with_manifest):
    if not with_manifest:
        (bucket / "manifest.json").unlink()
    urls = f"{served.url}/bucket/train/shard-000000.tar", "s3://bucket/train/shard-000000.tar"
    (shard,) = shards_of(urls[0] if web else urls[1], access)
    shard.read(5, 0)
    path = bucket / shard.name
    path.write_bytes(path.read_bytes())
    for read in (lambda: shard.read(5, 0), shard.open_file, pickle.loads(pickle.dumps(shard)).open_file):
        with pytest.raises(DataError, match="has been replaced since the run started"):
            read()


def test_a_download_is_never_put_together_from_two_versions(served, access):
    content = os.urandom(5_000_000)
    path = served.folder / "big.tar"
    path.write_bytes(content)
    (shard,) = shards_of(f"{served.url}/big.tar", access)
    served.cut = 1
    served.after_cut = lambda: path.write_bytes(content[::-1])
    with pytest.raises(DataError, match="has been replaced since the run started"):
        shard.open_file()
    assert not shard.local.exists()
