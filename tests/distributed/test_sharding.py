"""Runs on two ranks under FSDP2, against one rank with the same shards; and checkpoints that change hands between them."""

import pytest
import torch

from tests.distributed.spawn import run_on_ranks
from tests.distributed.test_training import NUM_STEPS, InfiniteOnTheLastRank, farthest_move, train
from tests.tiny import write_shards
from tests.unit.training.running import same
from timix_pl.training.sharding import ShardedStrategy


def sharded(**options):
    return ShardedStrategy(2, **({"sharded_checkpoints": True} | options))


def runs_on_two(folder, one):
    """Weights and rows of each kind of run; ``one``: the folder of the run on one rank."""
    halfway = "step-00000002.ckpt"
    return {
        "whole": train(folder, folder / "whole", strategy=sharded()),
        "in chunks": train(folder, folder / "chunks", strategy=sharded(), micro_batch_size=2),
        "resumed": train(folder, folder / "resumed", strategy=sharded(), resume_from=folder / "whole" / halfway),
        "resumed from one rank": train(folder, folder / "from_one", strategy=sharded(sharded_checkpoints=False), resume_from=one / halfway),
        "skipping": train(folder, folder / "skipping", strategy=sharded(), objective=InfiniteOnTheLastRank()),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 10, seed=1, num_regions=2)
    one = train(folder, folder / "one")
    skipping = train(folder, folder / "one_skipping", objective=InfiniteOnTheLastRank())
    return folder, one, skipping, run_on_ranks(runs_on_two, 2, folder, folder / "one")


def close(found, wanted):
    moved = farthest_move(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-3 * moved, msg=name)


@pytest.mark.parametrize("kind", ["whole", "in chunks", "resumed from one rank"])
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


def test_a_resumed_run_ends_with_the_same_bits(results):
    *_, ranks = results
    for of_rank in ranks:
        assert same(of_rank["resumed"][0], of_rank["whole"][0])
    assert ranks[0]["resumed"][1] == ranks[0]["whole"][1][2:]


def test_a_loss_that_is_infinite_on_one_rank_is_skipped_on_both(results):
    _, _, (weights, rows), ranks = results
    for of_rank in ranks:
        close(of_rank["skipping"][0], weights)
    assert [row["train/num_skipped_steps"] for row in ranks[0]["skipping"][1]] == [row["train/num_skipped_steps"] for row in rows]


@pytest.mark.parametrize("written", ["whole", "from_one"])
def test_one_rank_goes_on_from_a_folder_or_a_file_of_two(results, written):
    folder, (weights, rows), *_ = results
    step = 2 if written == "whole" else NUM_STEPS
    checkpoint = folder / written / f"step-{step:08d}.ckpt"
    assert checkpoint.is_dir() == (written == "whole")
    found, rows_found = train(folder, folder / f"back_from_{written}", resume_from=checkpoint)
    close(found, weights)
    assert len(rows_found) == NUM_STEPS - step
