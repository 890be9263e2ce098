"""Compiled blocks: the same values, the same names, and no new compilation when batch sizes vary."""

import pytest
import torch
from torch._dynamo.utils import counters

from tests.tiny import GRID, mix_step, random_pairs, random_regions, tiny_model
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.patch_dropout import PatchDropout

NUM_PAIRS = 12


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def train_step(encoder, step, compute="extra"):
    """More mixed rows from step to step, as under a ramp; other numbers of region images and phrases in each."""
    pairs = random_pairs(encoder, NUM_PAIRS, seed=step)
    rows, partners = mixed_rows(NUM_PAIRS, NUM_PAIRS, (3 + step) / NUM_PAIRS, seed=0, step=step, first=0)
    num_images = 2 + step % 4
    regions = random_regions(encoder, num_images, num_images + 1 + step % 5, seed=step)
    dropout = PatchDropout(encoder.patch_dropout, 0, step, 0) if encoder.patch_dropout else None
    encoded = encoder(
        pairs.images, pairs.tokens, mix=mix_step(TiMix(GRID), compute, rows, partners, 0, step, 0), regions=regions, dropout=dropout
    )
    mixed = encoded.mixed_image_features.sum() if compute == "extra" else 0
    loss = encoded.image_features.sum() + encoded.text_features.sum() + encoded.region_logits.sum() + mixed
    encoder.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("compute", "options", "backend"),
    [
        ("extra", {}, "aot_eager"),
        ("replace", {}, "eager"),
        ("extra", {"patch_dropout": 0.5}, "eager"),
        ("replace", {"mixing_level": 1}, "aot_eager"),
        ("extra", {"mixing_level": 2}, "eager"),
    ],
)
def test_ten_steps_of_varying_sizes_compile_no_more_than_the_first_two(compute, options, backend):
    plain, compiled = tiny_model(**options), tiny_model(**options)
    compiled.compile_blocks(backend)
    compiled.checkpoint_gradients()
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for step in range(10):
        loss, gradients = train_step(compiled, step, compute)
        expected, expected_gradients = train_step(plain, step, compute)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-4, msg=name)
        if step == 1:
            after_two_steps = counters["stats"]["unique_graphs"]
    assert 0 < counters["stats"]["unique_graphs"] == after_two_steps <= 7
    assert not counters["graph_break"]


def test_evaluation_between_steps_compiles_once():
    encoder = tiny_model()
    encoder.compile_blocks("eager")
    for step in range(4):
        train_step(encoder, step)
        encoder.eval()
        with torch.no_grad():
            pairs = random_pairs(encoder, 5 + step, seed=0)
            encoder.encode_image(pairs.images), encoder.encode_text(pairs.tokens)
            encoder.patch_scores(pairs.images, pairs.tokens)
        encoder.train()
        if step == 1:
            after_two_rounds = counters["stats"]["unique_graphs"]
    assert counters["stats"]["unique_graphs"] == after_two_rounds < torch._dynamo.config.recompile_limit
