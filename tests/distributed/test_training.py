"""Whole training runs on two ranks under Lightning's DDP, against one rank with the same shards."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.tensor import DTensor

from tests.distributed.spawn import run_on_ranks
from tests.optim import optim_settings
from tests.step_data import pair_data
from tests.tiny import GRID, tiny_model, write_shards
from tests.unit.training.running import Rows, same, training_module, weights_of
from timix_pl.core.distributed import rank, world_size
from timix_pl.core.types import LossOutput
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.checkpoint_io import AtomicCheckpointIO
from timix_pl.training.objective import Contrastive, Objective

NUM_STEPS = 4


def stream(folder, name):
    return SampleStream(str(folder / name), key=name, seed=0, name=name, window_shards=2)


def train(
    folder,
    checkpoints=None,
    *,
    max_steps=NUM_STEPS,
    resume_from=None,
    objective=None,
    strategy=None,
    micro_batch_size=None,
    precision="32-true",
    optim=None,
    callbacks=(),
    **model_options,
):
    """Weights and rows after a run with TiMix, and regions in every second step. Of a moving average of the weights, these too.

    ``checkpoints``: the folder for one after every second step; None: a run from which no other goes on.
    """
    saving = [] if checkpoints is None else [CheckpointsCallback(checkpoints, every_n_steps=2, every_n_minutes=None, keep_last=9)]
    model = tiny_model(**model_options)
    # so large an eps that AdamW moves by the gradient, not by its sign: rounding stays rounding
    optim = optim or optim_settings(lr=0.1, eps=1.0, weight_decay=0.0, warmup_frac=0.25)
    module = training_module(
        model, num_steps=NUM_STEPS, objective=objective, optim=optim, non_finite="skip", micro_batch_size=micro_batch_size
    )
    data = pair_data(
        stream(folder, "train"),
        stream(folder, "regions"),
        model.tokenizer,
        global_batch_size=8,
        max_steps=max_steps,
        seed=0,
        region_batch_size=4,
        region_every_n_steps=2,
        augmentation=Augmentation((0.5, 1.0), (0.75, 1.33), True),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size(),
        strategy=strategy or (DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True) if world_size() > 1 else "auto"),
        precision=precision,
        max_steps=max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=[Rows()],
        callbacks=[
            MixingCallback(TiMix(GRID), ratio=1.0, warmup_frac=0.5, group_size=2),
            *callbacks,
            *saving,
        ],
        enable_checkpointing=bool(saving),
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
    averages = {} if module.average is None else {f"average.{name}": tensor for name, tensor in weights_of(module.average).items()}
    return whole(weights_of(model) | averages), trainer.loggers[0].rows


def whole(weights):
    return {name: weight.full_tensor() if isinstance(weight, DTensor) else weight for name, weight in weights.items()}


class InfiniteOnTheLastRank(Contrastive):
    """In the second step, the loss of one rank alone is infinite; every gradient is finite."""

    calls = 0

    def __call__(self, encoded, *, first, gamma=1.0):
        self.calls += 1
        output = super().__call__(encoded, first=first, gamma=gamma)
        broken = self.calls == 2 and rank() == world_size() - 1
        return LossOutput(output.loss + math.inf, output.terms) if broken else output


def whole_and_skipping(folder):
    return train(folder, folder / "whole"), train(folder, objective=Objective(InfiniteOnTheLastRank()))


def whole_and_skipping_and_resumed(folder):
    return *whole_and_skipping(folder), train(folder, resume_from=folder / "whole" / "step-00000002.ckpt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Those of one rank, without a resumed run, and of each of two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder in folders:
        write_shards(folder / "train", 20)
        write_shards(folder / "regions", 10, seed=1, num_regions=2)
    return whole_and_skipping(folders[0]), *run_on_ranks(whole_and_skipping_and_resumed, 2, folders[1])


def farthest_move(weights):
    start = weights_of(tiny_model())
    return max((weights[name] - start[name]).abs().max().item() for name in weights)


def test_two_ranks_train_the_model_of_one(results):
    (weights, rows), *_ = results[0]
    moved = farthest_move(weights)
    for (weights_of_two, _), *_ in results[1:]:
        for name in weights:
            torch.testing.assert_close(weights_of_two[name], weights[name], rtol=0, atol=1e-3 * moved, msg=name)
    (_, rows_of_two), *_ = results[1]
    compared = [
        name for name in rows[0] if name.startswith(("train/loss", "train/mixing", "train/lr", "train/grad_norm", "consumed", "step"))
    ]
    assert "train/loss/patch_text" in compared and "train/mixing/lam" in rows[-1]
    for one, two in zip(rows, rows_of_two, strict=True):
        for name in {*compared, *rows[-1]} & one.keys() - {"train/pta/precision", "train/pta/recall"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_both_ranks_hold_the_same_weights_and_one_logs(results):
    (first, _), *_ = results[1]
    (second, rows), *_ = results[2]
    assert same(first, second)
    assert rows == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_resumed_run_ends_with_the_same_bits(results, number):
    (weights, rows), _, (weights_resumed, rows_resumed) = results[1 + number]
    assert same(weights, weights_resumed)
    assert rows_resumed == rows[2:]


def test_a_loss_that_is_infinite_on_one_rank_is_skipped_on_both(results):
    """And on one rank alone, where it is the same step that is left out."""
    (one, rows), (first, rows_of_two), (second, _) = (of_rank[1] for of_rank in results)
    assert same(first, second)
    assert [row["train/num_skipped_steps"] for row in rows] == [row["train/num_skipped_steps"] for row in rows_of_two] == [0, 0, 1, 1]
    moved = farthest_move(one)
    for name in one:
        assert torch.isfinite(first[name]).all()
        torch.testing.assert_close(first[name], one[name], rtol=0, atol=1e-3 * moved, msg=name)
