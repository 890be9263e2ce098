"""Runs on two ranks under FSDP2, against one rank with the same shards; and checkpoints that change hands between them."""

import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.distributed.spawn import run_on_ranks
from tests.distributed.test_training import NUM_STEPS, InfiniteOnTheLastRank, farthest_move, train
from tests.tiny import write_shards
from tests.unit.training.running import same
from timix_pl.core.distributed import rank
from timix_pl.core.errors import RunError
from timix_pl.training.callbacks.checkpoints import newest_whole_checkpoint
from timix_pl.training.checkpoint_io import read_checkpoint, save_folder
from timix_pl.training.objective import Objective
from timix_pl.training.sharding import ShardedStrategy

VARIANTS = {
    "bf16 weights": {"precision": "bf16-true"},
    "patch dropout": {"patch_dropout": 0.25},
    "mixed tokens": {"mixing_level": 1},
}


def sharded(**options):
    return ShardedStrategy(2, **({"sharded_checkpoints": True} | options))


def runs_on_two(folder, one):
    """Weights and rows of each kind of run; ``one``: the folder of the run on one rank."""
    halfway = "step-00000002.ckpt"
    bf16 = VARIANTS["bf16 weights"]
    return {
        "bf16 weights": train(folder, folder / "bf16", strategy=sharded(), **bf16),
        "bf16 weights, resumed": train(folder, strategy=sharded(), resume_from=folder / "bf16" / halfway, **bf16),
        "patch dropout": train(folder, strategy=sharded(), **VARIANTS["patch dropout"]),
        "mixed tokens": train(folder, strategy=sharded(), **VARIANTS["mixed tokens"]),
        "whole": train(folder, folder / "whole", strategy=sharded()),
        "in chunks": train(folder, strategy=sharded(), micro_batch_size=2),
        "offloaded": train(folder, folder / "offloaded", strategy=sharded(offload=True)),
        "resumed": train(folder, strategy=sharded(), resume_from=folder / "whole" / halfway),
        "resumed from one rank": train(folder, folder / "from_one", strategy=sharded(sharded_checkpoints=False), resume_from=one / halfway),
        "skipping": train(folder, strategy=sharded(), objective=Objective(InfiniteOnTheLastRank())),
        "unwritable": unwritable(folder),
        "of another model": of_another_model(folder),
    }


def unwritable(folder):
    """What is said where rank 1 cannot write, and what is left of the checkpoint that was there."""
    target = folder / "unwritable" / "best.ckpt"
    save_folder({"state_dict": {"x": torch.ones(2)}}, target)
    writer = dcp.FileSystemWriter.write_data

    def full(*args):
        raise OSError("no space left on device")

    dcp.FileSystemWriter.write_data = full if rank() == 1 else writer
    try:
        save_folder({"state_dict": {"x": torch.zeros(2)}}, target)
    except RunError as error:
        return str(error), [path.name for path in target.parent.iterdir()], read_checkpoint(target)["state_dict"]["x"]
    finally:
        dcp.FileSystemWriter.write_data = writer
    raise AssertionError("it was written")


def of_another_model(folder):
    path = folder / "another" / "step-00000002.ckpt"
    save_folder({"state_dict": {"x": torch.ones(2)}, "optimizer_states": [{"state": {}, "param_groups": []}]}, path)
    try:
        train(folder, strategy=sharded(), resume_from=path)
    except RunError as error:
        return str(error)
    raise AssertionError("it was loaded")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 10, seed=1, num_regions=2)
    one = train(folder, folder / "one")
    skipping = train(folder, objective=Objective(InfiniteOnTheLastRank()))
    return folder, one, skipping, run_on_ranks(runs_on_two, 2, folder, folder / "one")


def close(found, wanted):
    moved = farthest_move(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-3 * moved, msg=name)


@pytest.mark.parametrize("kind", ["whole", "in chunks", "offloaded", "resumed from one rank"])
def test_shards_train_the_model_of_one_rank(results, kind):
    _, (weights, rows), _, ranks = results
    for of_rank in ranks:
        close(of_rank[kind][0], weights)
    rows = rows if kind != "resumed from one rank" else rows[2:]
    assert len(ranks[0][kind][1]) == len(rows) > 0
    for one, two in zip(rows, ranks[0][kind][1], strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"train/pta/precision", "train/pta/recall"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


@pytest.mark.parametrize(("kind", "resumed"), [("whole", "resumed"), ("bf16 weights", "bf16 weights, resumed")])
def test_a_resumed_run_ends_with_the_same_bits(results, kind, resumed):
    *_, ranks = results
    for of_rank in ranks:
        assert same(of_rank[resumed][0], of_rank[kind][0])
    assert ranks[0][resumed][1] == ranks[0][kind][1][2:]


@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_train_like_one_rank_in_other_ways_too(results, variant):
    folder, (plain, _), _, ranks = results
    weights, rows = train(folder, **VARIANTS[variant])
    assert not same(weights, plain)
    found, rows_found = ranks[0][variant]
    assert {weight.dtype for weight in found.values()} == {weight.dtype for weight in weights.values()}
    if variant != "bf16 weights":
        close(found, weights)
    for one, two in zip(rows, rows_found, strict=True):
        assert two["train/loss/total"] == pytest.approx(one["train/loss/total"], rel=1e-2 if variant == "bf16 weights" else 1e-4)


def test_a_loss_that_is_infinite_on_one_rank_is_skipped_on_both(results):
    _, _, (weights, rows), ranks = results
    for of_rank in ranks:
        close(of_rank["skipping"][0], weights)
    assert [row["train/num_skipped_steps"] for row in ranks[0]["skipping"][1]] == [row["train/num_skipped_steps"] for row in rows]


@pytest.mark.parametrize("written", ["whole", "from_one"])
def test_one_rank_goes_on_from_a_folder_or_a_file_of_two(results, written):
    folder, (weights, _), *_ = results
    step = 2 if written == "whole" else NUM_STEPS
    checkpoint = folder / written / f"step-{step:08d}.ckpt"
    assert checkpoint.is_dir() == (written == "whole")
    found, rows_found = train(folder, resume_from=checkpoint)
    close(found, weights)
    assert len(rows_found) == NUM_STEPS - step


def test_where_one_rank_cannot_write_all_are_told_and_the_old_checkpoint_stays(results):
    *_, ranks = results
    for message, left, x in (of_rank["unwritable"] for of_rank in ranks):
        assert "best.ckpt cannot be written" in message and "no space left on device" in message
        assert left == ["best.ckpt"] and x.tolist() == [1, 1]


def test_a_checkpoint_of_another_model_is_refused_with_names(results):
    *_, ranks = results
    for of_rank in ranks:
        assert "of its tensors do not fit this model: " in of_rank["of another model"]


@pytest.mark.parametrize("damage", ["no marker", "cut off", "part missing"])
def test_a_damaged_folder_is_passed_over(results, tmp_path, damage):
    folder, *_ = results
    for step in (2, 4):
        shutil.copytree(folder / "whole" / f"step-{step:08d}.ckpt", tmp_path / f"step-{step:08d}.ckpt")
    newest = tmp_path / "step-00000004.ckpt"
    assert newest_whole_checkpoint(tmp_path) == (newest, [])
    part = next(newest.glob("*.distcp"))
    if damage == "no marker":
        (newest / "whole.json").unlink()
    elif damage == "cut off":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        part.unlink()
    assert newest_whole_checkpoint(tmp_path) == (tmp_path / "step-00000002.ckpt", [newest])
