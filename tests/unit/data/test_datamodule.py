"""Batches for Lightning: where a resumed run goes on, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch

from tests.step_data import pair_data
from tests.tiny import write_shards
from timix_pl.core.errors import DataError, RunError
from timix_pl.data.sets.resampled import ResampledShards
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.writer import ShardWriter


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("pairs") / "shards", 30))


def datamodule(shards, *, step=0, seed=0, window_shards=2, global_batch_size=4, pairs=None, num_workers=0, **options):
    pairs = pairs or SampleStream(shards, key="data.train_shards", seed=seed, name="train", window_shards=window_shards)
    data = pair_data(
        pairs,
        None,
        lambda texts: torch.zeros(len(texts), 1, dtype=torch.long),
        global_batch_size=global_batch_size,
        max_steps=20,
        seed=seed,
        num_workers=num_workers,
        **options,
    )
    data.trainer = SimpleNamespace(global_step=step, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    return data


def test_a_resumed_loader_goes_on_with_the_next_step(shards):
    whole = [batch.keys for batch in datamodule(shards).train_dataloader()]
    rest = [batch.keys for batch in datamodule(shards, step=13).train_dataloader()]
    assert len(whole) == 20 and rest == whole[13:]
    assert len(datamodule(shards, step=13).train_dataloader()) == 20  # the whole run, as progress is counted


def test_the_state_says_where_the_stream_stands(shards):
    state = datamodule(shards, step=9).state_dict()
    assert state["consumed"] == 36 and state["epoch"] == 1 and state["seed"] == 0


def test_its_own_state_is_not_refused(shards):
    datamodule(shards).load_state_dict(datamodule(shards, step=9).state_dict())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "`seed=1`: the checkpoint was made with 0"),
        ({"global_batch_size": 8}, r"`global_batch_size=8`: the checkpoint was made with 4"),
        ({"window_shards": 3}, r"`allow_changed=True`"),
    ],
)
def test_another_stream_is_refused(shards, changed, message):
    with pytest.raises(RunError, match=message):
        datamodule(shards, **changed).load_state_dict(datamodule(shards, step=9).state_dict())


def test_changed_shards_are_refused_unless_allowed(shards, tmp_path):
    other = str(write_shards(tmp_path / "shards", 31))
    state = datamodule(shards, step=9).state_dict()
    with pytest.raises(RunError, match=r"`pairs`.*`allow_changed=True`"):
        datamodule(other).load_state_dict(state)
    datamodule(other, allow_changed=True).load_state_dict(state)


@pytest.mark.parametrize("drawn", [False, True], ids=["in order", "drawn"])
def test_an_error_in_a_loader_process_keeps_its_message(tmp_path, drawn):
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(3):
            writer.write(f"s{number}", b"not an image", "jpg", captions=["a"])
    shards = str(tmp_path / "shards")
    pairs = ResampledShards(shards, key="data.train_shards", seed=0) if drawn else None
    for num_workers in (0, 1):
        with pytest.raises(DataError, match=r"\Adata\.train_shards: .* cannot be used.*cannot be decoded") as error:
            list(datamodule(shards, pairs=pairs, num_workers=num_workers).train_dataloader())
        assert "Traceback" not in str(error.value)


def test_drawn_shards_that_are_cut_off_are_named_and_the_others_go_on(tmp_path):
    folder = write_shards(tmp_path / "shards", 24)
    content = (folder / "shard-000001.tar").read_bytes()
    (folder / "shard-000001.tar").write_bytes(content[: len(content) // 2 - 700])
    (folder / "shard-000002.tar").write_bytes(b"not a tar")
    pairs = ResampledShards(str(folder), key="data.train_shards", seed=0)
    batches = [batch for batch in datamodule(None, pairs=pairs).train_dataloader()]
    assert len(batches) == 20 and {key for batch in batches for key in batch.keys} >= {f"s{number}" for number in range(8)}
    problems = [problem for batch in batches for problem in batch.problems if not problem["key"]]
    assert {(problem["folder"], problem["shard"]) for problem in problems} == {(str(folder), f"shard-00000{n}.tar") for n in (1, 2)}
    assert all("cannot be read" in problem["reason"] and problem["outcome"] == "passed over" for problem in problems)


def test_a_drawn_shard_that_is_gone_is_named_and_the_others_go_on(tmp_path):
    folder = write_shards(tmp_path / "shards", 24)
    pairs = ResampledShards(str(folder), key="data.train_shards", seed=0)
    (folder / "shard-000001.tar").unlink()
    batches = [batch for batch in datamodule(None, pairs=pairs).train_dataloader()]
    assert {key for batch in batches for key in batch.keys} == {f"s{number}" for number in (*range(8), *range(16, 24))}
    problems = [problem for batch in batches for problem in batch.problems]
    assert problems and {(problem["folder"], problem["shard"], problem["outcome"]) for problem in problems} == {
        (str(folder), "shard-000001.tar", "passed over")
    }
    assert all("FileNotFoundError: No such file" in problem["reason"] for problem in problems)


def test_drawn_shards_none_of_which_can_be_read_end_in_an_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar")
    pairs = ResampledShards(str(tmp_path / "a.tar"), key="data.train_shards", seed=0)
    with pytest.raises(DataError, match=r"\Adata\.train_shards: .*the rest of the shard cannot be read"):
        list(datamodule(None, pairs=pairs, num_workers=1).train_dataloader())
