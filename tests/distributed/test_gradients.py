"""Loss and every gradient of a step on two ranks, under DDP and FSDP2, whole and in chunks, against one process with the whole batch."""

import functools
import itertools

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.overrides.distributed import prepare_for_backward
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.spawn import run_on_ranks
from tests.distributed.test_objective import MIXERS, averaged, share_of_pairs, share_of_regions
from tests.objective import add_terms, pair_objective
from tests.plugins.coca import Captioning
from tests.plugins.patch_contrast import PatchContrast
from tests.tiny import GRID, mix_step, random_pairs, random_regions, taught_by, tiny_model
from tests.unit.training.test_accumulation import CASES as STEPS
from timix_pl.core.choices import LOSSES
from timix_pl.core.distributed import rank, world_size
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.training.accumulation import Chunk, accumulate, num_mixed_labels
from timix_pl.training.sharding import ShardedStrategy

G, GROUP, NUM_IMAGES, NUM_PHRASES = 8, 2, 4, 7
SPLITS = list(itertools.product(("ddp", "fsdp"), (1, 2)))  # more than two chunks: test_accumulation
CASES = [(step, *how) for step in STEPS for how in SPLITS]


def gradients(step, strategy, num_chunks, *, spare_memory, terms=()):
    """Loss and gradients of one step. ``spare_memory``: checkpointed blocks and tiled losses. ``terms``: kinds of further ones."""
    name, compute, targets, loss = step
    model = tiny_model(seed=1, init_logit_bias=-2.0 if loss == "siglip" else None)
    if spare_memory:
        model.checkpoint_gradients()
    options = {"targets": targets, "pta_weight": 0.5, "tile_rows": 3 if spare_memory else None}
    objective = pair_objective(LOSSES[loss](), terms=add_terms(model, *terms), **options)
    local, local_images = G // world_size(), NUM_IMAGES // world_size()
    regions = share_of_regions(random_regions(model, NUM_IMAGES, NUM_PHRASES, seed=3), rank() * local_images, local_images)
    batch = share_of_pairs(random_pairs(model, G, seed=2), rank() * local, local, regions)
    chunks = [Chunk(batch=part, mix=mix(model, name, compute, part)) for part in batch.split(local // num_chunks)]
    if strategy == "ddp":
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    elif strategy == "fsdp":
        sharding = ShardedStrategy(world_size(), sharded_checkpoints=True)
        sharding._device_mesh = init_device_mesh("cpu", (world_size(), 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
        sharding.shard(model)

    def encode(chunk):
        return chunk.encode(model)

    def backward(loss, encoded, last):
        if strategy == "ddp" and last:  # as Lightning does it where optimization is manual
            prepare_for_backward(wrapped, loss)
        loss.backward()

    num_items = objective.count_items(batch, torch.device("cpu"), num_mixed_labels(chunks, GRID[0] * GRID[1]))
    _, output = accumulate(chunks, encode, objective, num_items, 0.7, backward)
    found = {key: whole(p.grad) for key, p in model.named_parameters() if p.grad is not None}
    return averaged(output.loss).reshape(()), found


def whole(gradient):
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()


def mix(model, name, compute, pairs):
    if name == "none":
        return None
    rows, partners = mixed_rows(len(pairs.images), GROUP, 1.0, seed=4, step=5, first=pairs.first)
    joined = model.tokenizer(MixGen(GRID).join(pairs.captions, rows, partners)) if name == "mixgen" else None
    step = mix_step(MIXERS[name], compute, rows, partners, 4, 5, pairs.first, joined)
    return taught_by(step, len(pairs.images), GROUP) if name == "taught" else step


TERMS = (Captioning, PatchContrast)
WITH_TERMS = [(("timix", compute, "one_hot", "info_nce"), *how) for compute in ("extra", "replace") for how in SPLITS]


def all_cases():
    plain = {case: gradients(*case, spare_memory=case[2] > 1) for case in CASES}
    return plain, {case: gradients(*case, spare_memory=case[2] > 1, terms=TERMS) for case in WITH_TERMS}


@pytest.fixture(scope="module")
def two_ranks():
    return run_on_ranks(all_cases, 2)


@functools.cache
def reference(step, terms=()):
    return gradients(step, "one", 1, spare_memory=False, terms=terms)


def words(case):
    return f"{'-'.join(case[0])}-{case[1]}-{case[2]}"


@pytest.mark.parametrize("case", CASES, ids=words)
def test_every_way_of_splitting_a_step_gives_the_same_gradients(two_ranks, case):
    check_same([plain[case] for plain, _ in two_ranks], reference(case[0]))


@pytest.mark.parametrize("case", WITH_TERMS, ids=words)
def test_further_terms_of_the_loss_too(two_ranks, case):
    """One that is a mean over items, of which the ranks have unlike numbers, and one that compares pairs."""
    wanted = reference(case[0], TERMS)
    assert {name.split(".")[1] for name in wanted[1] if name.startswith("terms.")} == {kind.choice for kind in TERMS}
    check_same([with_terms[case] for _, with_terms in two_ranks], wanted)


def check_same(of_ranks, reference):
    assert not dist.is_initialized()
    loss, wanted = reference
    for loss_of_two, found in of_ranks:
        torch.testing.assert_close(loss_of_two, loss.detach(), rtol=2e-5, atol=1e-6)
        assert found.keys() == wanted.keys() and len(wanted) > 50
        for key, gradient in wanted.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=2e-5 * max(1.0, gradient.abs().max().item()), msg=key)
