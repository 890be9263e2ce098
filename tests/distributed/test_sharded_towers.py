"""FSDP2 over the parts of the model, on two ranks, against one process without it."""

import warnings

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from tests.distributed.spawn import run_on_ranks
from tests.tiny import GRID, mix_step, random_captions, random_images, random_regions, tiny_model
from timix_pl.core.distributed import rank, world_size
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.patch_dropout import PatchDropout

NUM_PAIRS, NUM_STEPS = 8, 3
CASES = {
    "pixels, extra": ("extra", {}, False, False),
    "tokens, replace, checkpointed": ("replace", {"mixing_level": 1}, True, False),
    "dropout, replace, checkpointed and compiled": ("replace", {"patch_dropout": 0.25}, True, True),
    "tokens, extra, compiled": ("extra", {"mixing_level": 2, "pta_grad": "trunk"}, False, True),
}


def loss_of(model, number, step, compute):
    """What rank ``number`` of two gives, in step ``step``."""
    size = NUM_PAIRS // 2
    part = slice(number * size, (number + 1) * size)
    images, tokens = random_images(NUM_PAIRS, seed=step)[part], model.tokenizer(random_captions(NUM_PAIRS, seed=step)[part])
    rows, partners = mixed_rows(size, size, (2 + step) / size, seed=0, step=step, first=part.start)
    mix = mix_step(TiMix(GRID), compute, rows, partners, 0, step, part.start)
    dropout = PatchDropout(model.patch_dropout, 0, step, part.start) if model.patch_dropout else None
    encoded = model(images, tokens, mix=mix, regions=random_regions(model, 2, 4 + step, seed=step + number), dropout=dropout)
    weights = torch.randn(16, generator=torch.Generator().manual_seed(1))
    features = (encoded.image_features, encoded.text_features, encoded.mixed_image_features)
    return sum((f @ weights).square().sum() for f in features if f is not None) + encoded.region_logits.square().mean()


def gradients_of_a_sharded_model(compute, options, checkpointed, compiled):
    warnings.filterwarnings("ignore", ".*returned a view tensor")  # nothing writes to the features in place
    model = tiny_model(**options)
    if checkpointed:
        model.checkpoint_gradients()
    if compiled:
        model.compile_blocks("eager")
    for part in (*model.blocks(), model.image, model.text, model.pta, model):
        fully_shard(part)
    for step in range(NUM_STEPS):
        loss_of(model, rank(), step, compute).backward()
    return {name: p.grad.full_tensor() * world_size() for name, p in model.named_parameters() if p.grad is not None}


def all_cases():
    return {name: gradients_of_a_sharded_model(*case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def two_ranks():
    return run_on_ranks(all_cases, 2)


@pytest.mark.parametrize("case", CASES)
def test_a_sharded_model_has_the_gradients_of_a_whole_one(two_ranks, case):
    compute, options, *_ = CASES[case]
    model = tiny_model(**options)
    for step in range(NUM_STEPS):
        for number in range(2):
            loss_of(model, number, step, compute).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for gradients in (gradients[case] for gradients in two_ranks):
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * max(1, float(expected[name].abs().max())), msg=name)
