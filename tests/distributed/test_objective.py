"""Losses and gradients of two ranks, averaged as DDP does, against one process with the whole batch."""

import itertools

import pytest
import torch
import torch.distributed as dist
from open_clip.loss import ClipLoss, SigLipLoss

from tests.distributed.spawn import run_on_ranks
from tests.tiny import GRID, random_pairs, random_regions, tiny_model
from timix_pl.core.distributed import gather, gather_objects, rank, sum_over_ranks, world_size
from timix_pl.core.types import Batch, RegionBatch
from timix_pl.losses.info_nce import info_nce, pair_logits
from timix_pl.losses.siglip import siglip
from timix_pl.mixing.cutmix import CutMix
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.mixgen import MixGen
from timix_pl.mixing.mixup import Mixup
from timix_pl.mixing.step import MixStep
from timix_pl.mixing.timix import TiMix
from timix_pl.training.objective import Objective

G, GROUP, NUM_IMAGES, NUM_PHRASES = 8, 2, 4, 7
MIXERS = {"timix": TiMix(GRID), "relevance": TiMix(GRID, lam="relevance"), "cutmix": CutMix(GRID), "mixup": Mixup(), "mixgen": MixGen()}
CASES = [("none", "extra", "self", "info_nce"), ("none", "extra", "self", "siglip")]
CASES += [("timix", "extra", targets, loss) for targets, loss in itertools.product(("self", "one_hot"), ("info_nce", "siglip"))]
CASES += [
    ("timix", "replace", "one_hot", "info_nce"),
    ("relevance", "replace", "one_hot", "siglip"),
    ("relevance", "extra", "self", "info_nce"),
]
CASES += [("cutmix", "extra", "self", "info_nce"), ("mixup", "replace", "one_hot", "info_nce")]
CASES += [
    ("mixgen", "extra", "one_hot", "info_nce"),
    ("mixgen", "replace", "one_hot", "info_nce"),
    ("mixgen", "extra", "one_hot", "siglip"),
]


def share_of_pairs(pairs, first, size):
    part = slice(first, first + size)
    return Batch(pairs.images[part], pairs.tokens[part], pairs.keys[part], pairs.captions[part], first, [])


def share_of_regions(regions, first, size):
    """Two images each, but unlike numbers of phrases."""
    mine = (regions.image_index >= first) & (regions.image_index < first + size)
    index = regions.image_index[mine] - first
    return RegionBatch(regions.images[first : first + size], regions.tokens[mine], index, regions.patch_labels[mine], [])


def averaged(tensor):
    return sum_over_ranks(tensor) / world_size()


def loss_and_gradients(name, compute, targets, loss):
    model = tiny_model(seed=1, init_logit_bias=-2.0 if loss == "siglip" else None)
    local = G // world_size()
    pairs = share_of_pairs(random_pairs(model, G, seed=2), rank() * local, local)
    local_images = NUM_IMAGES // world_size()
    regions = share_of_regions(random_regions(model, NUM_IMAGES, NUM_PHRASES, seed=3), rank() * local_images, local_images)
    step = None
    if name != "none":
        rows, partners = mixed_rows(local, GROUP, 1.0, seed=4, step=5, first=pairs.first)
        joined = model.tokenizer(MixGen.join(pairs.captions, rows, partners)) if name == "mixgen" else None
        step = MixStep(MIXERS[name], compute, rows, partners, 4, 5, pairs.first, joined)
    encoded = model(pairs.images, pairs.tokens, mix=step, regions=regions)
    output = Objective(loss=loss, targets=targets, pta_weight=0.5)(encoded, regions, first=pairs.first, gamma=0.7)
    output.loss.backward()
    terms = {"total": output.loss, **output.terms}
    gradients = {key: averaged(p.grad) for key, p in model.named_parameters() if p.grad is not None and "token_embedding" not in key}
    return {key: averaged(value).reshape(()) for key, value in terms.items()}, gradients


def open_clips_loss(kind):
    """open_clip's distributed losses and ours on the same features: losses and gradients of both."""
    draw = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(2, G, 6, generator=draw, dtype=torch.float64), dim=-1)
    local = G // world_size()
    results = []
    for ours in (True, False):
        image, text = (side[rank() * local : (rank() + 1) * local].clone().requires_grad_() for side in features)
        scale, bias = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (7.0, -3.0))
        if kind == "info_nce" and ours:
            loss = info_nce(pair_logits(image, text, gather(image), gather(text), scale), first=rank() * local)
        elif kind == "info_nce":
            loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank(), world_size=world_size())(image, text, scale)
        elif ours:
            loss = siglip(scale * image @ gather(text).T + bias, first=rank() * local)
        else:
            loss = SigLipLoss(rank=rank(), world_size=world_size(), dist_impl="gather")(image, text, scale, bias)
        leaves = (image, text, scale) if kind == "info_nce" else (image, text, scale, bias)
        results.append([loss.detach().reshape(()), *torch.autograd.grad(loss, leaves)])
    return results


def exchanges():
    x = torch.arange(2.0).view(2, 1) + 10 * rank()
    leaf = x.clone().requires_grad_()
    gathered = gather(leaf)
    (gathered * torch.arange(1.0, 5).view(4, 1) * (1 + rank())).sum().backward()
    return gather(x), gathered.detach(), leaf.grad, sum_over_ranks(x), gather_objects({"rank": rank()}), x


def all_cases():
    one = {case: loss_and_gradients(*case) for case in CASES}
    return one, {kind: open_clips_loss(kind) for kind in ("info_nce", "siglip")}, exchanges()


@pytest.fixture(scope="module")
def two_ranks():
    return run_on_ranks(all_cases, 2)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_ranks_learn_what_one_does(two_ranks, case):
    assert not dist.is_initialized()
    terms, gradients = loss_and_gradients(*case)
    for ours, _, _ in two_ranks:
        terms_of_two, gradients_of_two = ours[case]
        assert terms_of_two.keys() == terms.keys() and gradients_of_two.keys() == gradients.keys()
        for key, value in terms.items():
            torch.testing.assert_close(terms_of_two[key], value.detach(), rtol=2e-5, atol=1e-6, msg=key)
        for key, value in gradients.items():
            torch.testing.assert_close(gradients_of_two[key], value, rtol=1e-3, atol=2e-5 * max(1.0, value.abs().max().item()), msg=key)


@pytest.mark.parametrize("kind", ["info_nce", "siglip"])
def test_each_rank_has_open_clips_loss_and_gradient(two_ranks, kind):
    for _, losses, _ in two_ranks:
        for mine, reference in zip(*losses[kind], strict=True):
            torch.testing.assert_close(mine, reference.reshape(mine.shape), rtol=1e-9, atol=1e-11)


def test_exchanges_keep_the_order_of_ranks_and_send_gradients_home(two_ranks):
    for number, (_, _, (plain, with_gradient, gradient, total, objects, x)) in enumerate(two_ranks):
        assert plain.flatten().tolist() == with_gradient.flatten().tolist() == [0, 1, 10, 11]
        weights = torch.arange(1.0, 5)[2 * number : 2 * number + 2]
        assert gradient.flatten().tolist() == (weights * (1 + 2)).tolist()  # both ranks' losses, with factors 1 and 2
        assert total.flatten().tolist() == [10, 12]
        assert objects == [{"rank": 0}, {"rank": 1}]
        assert x.flatten().tolist() == [10 * number, 10 * number + 1]
