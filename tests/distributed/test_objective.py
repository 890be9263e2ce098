"""Losses and gradients of two ranks, averaged as DDP does, against one process with the whole batch."""

import functools
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from open_clip.loss import ClipLoss, SigLipLoss

from tests.distributed.spawn import run_on_ranks
from tests.objective import loss_of, pair_objective
from tests.tiny import GRID, mix_step, random_pairs, random_regions, tiny_model
from timix_pl.core.choices import LOSSES
from timix_pl.core.distributed import gather, gather_objects, rank, sum_over_ranks, world_size
from timix_pl.core.types import RegionBatch
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.contrastive.siglip import siglip
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix

G, GROUP, RATIO, NUM_IMAGES, NUM_PHRASES = 8, 4, 0.75, 4, 7
MIXERS = {
    "timix": TiMix(GRID),
    "relevance": TiMix(GRID, lam="relevance"),
    "cutmix": CutMix(GRID),
    "mixup": Mixup(GRID),
    "mixgen": MixGen(GRID),
    "taught": TiMix(GRID),
}
CASES = [("none", "extra", "one_hot")]
CASES += [("timix", "extra", "self"), ("timix", "extra", "one_hot"), ("timix", "replace", "one_hot")]
CASES += [("relevance", "extra", "self"), ("relevance", "replace", "one_hot"), ("cutmix", "extra", "self"), ("mixup", "replace", "one_hot")]
CASES += [("mixgen", "extra", "one_hot"), ("mixgen", "replace", "one_hot")]
CASES = [(*case, loss) for case in CASES for loss in ("info_nce", "siglip")]
UNTILED, TILED = None, 3


def share_of_pairs(pairs, first, size, regions=None):
    part = slice(first, first + size)
    parts = {name: getattr(pairs, name)[part] for name in ("images", "tokens", "keys", "captions")}
    return replace(pairs, **parts, first=first, regions=regions)


def share_of_regions(regions, first, size):
    """Two images each, but unlike numbers of phrases."""
    mine = (regions.image_index >= first) & (regions.image_index < first + size)
    index = regions.image_index[mine] - first
    images, tokens, labels = regions.images[first : first + size], regions.tokens[mine], regions.patch_labels[mine]
    return RegionBatch(images=images, tokens=tokens, image_index=index, patch_labels=labels, keys=[])


def averaged(tensor):
    return sum_over_ranks(tensor) / world_size()


def all_averaged(tensors):
    """Of many, in one exchange."""
    flat = averaged(torch.cat([tensor.flatten() for tensor in tensors.values()])).split([tensor.numel() for tensor in tensors.values()])
    return {key: part.view(tensor.shape) for part, (key, tensor) in zip(flat, tensors.items(), strict=True)}


@functools.cache
def model_for(loss):
    """One model for all cases, none of which changes its weights."""
    return tiny_model(seed=1, init_logit_bias=-2.0 if loss == "siglip" else None)


def loss_and_gradients(name, compute, targets, loss, *, tile_rows=UNTILED, own_rank=False, half=None):
    """This rank's share of the global batch, or without ranks a half of it as if there was nothing else. ``own_rank``: without regions."""
    model = model_for(loss)
    model.zero_grad()
    local = G // world_size() if half is None else G // 2
    local_images = NUM_IMAGES // world_size()
    regions = share_of_regions(random_regions(model, NUM_IMAGES, NUM_PHRASES, seed=3), rank() * local_images, local_images)
    regions = None if own_rank else regions
    pairs = share_of_pairs(random_pairs(model, G, seed=2), (rank() if half is None else half) * local, local, regions)
    step = None
    if name != "none":
        rows, partners = mixed_rows(local, GROUP, RATIO, seed=4, step=5, first=pairs.first)
        joined = model.tokenizer(MixGen(GRID).join(pairs.captions, rows, partners)) if name == "mixgen" else None
        step = mix_step(MIXERS[name], compute, rows, partners, 4, 5, pairs.first, joined)
    encoded = model(pairs.images, pairs.tokens, mix=step, regions=regions)
    negatives = "own_rank" if own_rank else "all_ranks"
    objective = pair_objective(LOSSES[loss](), negatives=negatives, targets=targets, pta_weight=0.5, tile_rows=tile_rows)
    output = loss_of(objective, encoded, pairs, gamma=0.7)
    output.loss.backward()
    terms = {"total": output.loss, **output.terms}
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None and "token_embedding" not in key}
    return {key: averaged(value).reshape(()) for key, value in terms.items()}, all_averaged(gradients)


def assert_same(result, expected):
    for values, references, (rtol, atol) in zip(result, expected, ((2e-5, 1e-6), (1e-3, 2e-5)), strict=True):
        assert values.keys() == references.keys()
        for key, reference in references.items():
            largest = max(1.0, reference.abs().max().item())
            torch.testing.assert_close(values[key], reference.detach(), rtol=rtol, atol=atol * largest, msg=key)


def open_clips_loss(kind):
    """open_clip's distributed losses and ours on the same features: losses and gradients of both, those of all ranks averaged."""
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, G, 6, generator=draw, dtype=torch.float64), dim=-1)
    local = G // world_size()
    results = []
    for ours in (True, False):
        image, text = (side[rank() * local : (rank() + 1) * local].clone().requires_grad_() for side in features)
        scale, bias = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (7.0, -3.0))
        if kind == "info_nce" and ours:
            loss = info_nce(image, gather(text), scale, first=rank() * local, tile_rows=TILED)
        elif kind == "info_nce":
            loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank(), world_size=world_size())(image, text, scale)
        elif ours:
            loss = siglip(image, gather(text), scale, bias, first=rank() * local, tile_rows=TILED)
        else:
            loss = SigLipLoss(rank=rank(), world_size=world_size(), dist_impl="gather")(image, text, scale, bias)
        leaves = (image, text, scale) if kind == "info_nce" else (image, text, scale, bias)
        of_image, of_text, *of_others = torch.autograd.grad(loss, leaves)
        results.append([of_image, of_text, *(averaged(value) for value in (loss.reshape(()), *of_others))])
    return results


def exchanges():
    x = torch.arange(2.0).view(2, 1) + 10 * rank()
    leaf = x.clone().requires_grad_()
    gathered = gather(leaf)
    (gathered * torch.arange(1.0, 5).view(4, 1) * (1 + rank())).sum().backward()
    return gather(x), gathered.detach(), leaf.grad, sum_over_ranks(x), gather_objects({"rank": rank()}), x


def all_cases():
    tilings = {(*case, tile_rows): loss_and_gradients(*case, tile_rows=tile_rows) for case in CASES for tile_rows in (UNTILED, TILED)}
    alone = {case: loss_and_gradients(*case, tile_rows=TILED, own_rank=True) for case in CASES}
    return tilings, alone, {kind: open_clips_loss(kind) for kind in ("info_nce", "siglip")}, exchanges()


@pytest.fixture(scope="module")
def two_ranks():
    return run_on_ranks(all_cases, 2)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_ranks_learn_what_one_does(two_ranks, case):
    assert not dist.is_initialized()
    whole = loss_and_gradients(*case)
    for tilings, *_ in two_ranks:
        for tile_rows in (UNTILED, TILED):
            assert_same(tilings[*case, tile_rows], whole)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_with_negatives_of_its_own_each_rank_learns_as_if_alone(two_ranks, case):
    halves = [loss_and_gradients(*case, own_rank=True, half=half) for half in (0, 1)]
    mean = [{key: (one[key] + two[key]) / 2 for key in one} for one, two in zip(*halves, strict=True)]
    for _, alone, *_ in two_ranks:
        assert_same(alone[case], mean)


@pytest.mark.parametrize("kind", ["info_nce", "siglip"])
def test_each_rank_has_open_clips_loss_and_gradient(two_ranks, kind):
    for _, _, losses, _ in two_ranks:
        for mine, reference in zip(*losses[kind], strict=True):
            torch.testing.assert_close(mine, reference.reshape(mine.shape), rtol=1e-9, atol=1e-11)


def test_exchanges_keep_the_order_of_ranks_and_send_gradients_home(two_ranks):
    for number, (_, _, _, (plain, with_gradient, gradient, total, objects, x)) in enumerate(two_ranks):
        assert plain.flatten().tolist() == with_gradient.flatten().tolist() == [0, 1, 10, 11]
        weights = torch.arange(1.0, 5)[2 * number : 2 * number + 2]
        assert gradient.flatten().tolist() == (weights * (1 + 2)).tolist()  # both ranks' losses, with factors 1 and 2
        assert total.flatten().tolist() == [10, 12]
        assert objects == [{"rank": 0}, {"rank": 1}]
        assert x.flatten().tolist() == [10 * number, 10 * number + 1]
