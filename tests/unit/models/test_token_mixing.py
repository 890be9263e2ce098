"""Mixing of tokens: against a plain reference, and where it must equal the mixing of pixels."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import GRID, mix_step, random_captions, random_images, tiny_model
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder

MIXERS = {
    "timix": TiMix(GRID),
    "relevance": TiMix(GRID, lam="relevance"),
    "cutmix": CutMix(GRID),
    "mixup": Mixup(GRID),
    "mixgen": MixGen(GRID),
}


def mix_of(encoder, name, compute, captions):
    rows, partners = mixed_rows(8, 4, 0.75, seed=2, step=3, first=8)
    joined = encoder.tokenizer(MixGen(GRID).join(captions, rows, partners)) if name == "mixgen" else None
    return mix_step(MIXERS[name], compute, rows, partners, 2, 3, 8, joined)


def features_and_gradients(encoder, run):
    """All image features of a step, one below the other, the step's output, and the image tower's gradients."""
    encoder.zero_grad()
    features, encoded = run()
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    (features * weights).sum().backward()
    return features.detach(), encoded, {name: p.grad.clone() for name, p in encoder.image.named_parameters() if p.grad is not None}


def image_features(encoder, name, compute, images=None, captions=None):
    captions = captions or random_captions(8, seed=1)
    images = random_images(8, seed=1) if images is None else images
    encoded = encoder(images, encoder.tokenizer(captions), mix=mix_of(encoder, name, compute, captions))
    mixed = [encoded.mixed_image_features] if compute == "extra" else []
    return torch.cat([encoded.image_features, *mixed]), encoded


def reference(encoder, level, plan, compute):
    """Token by token, over open_clip's own parts."""
    tower, (_, columns) = encoder.image.tower, GRID

    def head(tokens):
        return torch.nn.functional.normalize(tower._pool(tokens)[0] @ tower.proj, dim=-1)

    tokens = tower._embeds(encoder.normalise(random_images(8, seed=1)))
    for block in tower.transformer.resblocks[:level]:
        tokens = block(tokens)
    mixed = []
    for m, (row, partner) in enumerate(zip(plan.rows.tolist(), plan.partners.tolist(), strict=True)):
        if plan.windows is None:
            mixed.append(plan.lam[m] * tokens[row] + (1 - plan.lam[m]) * tokens[partner])
            continue
        one = list(tokens[row])
        (ty, tx), (sy, sx) = plan.windows.target[m].tolist(), plan.windows.source[m].tolist()
        for y in range(plan.windows.side):
            for x in range(plan.windows.side):
                one[1 + (ty + y) * columns + tx + x] = tokens[partner, 1 + (sy + y) * columns + sx + x]
        mixed.append(torch.stack(one))
    if compute == "replace":
        everything = list(tokens)
        for row, one in zip(plan.rows.tolist(), mixed, strict=True):
            everything[row] = one
        tokens = torch.stack(everything)
    else:
        tokens = torch.cat([tokens, torch.stack(mixed)])
    for block in tower.transformer.resblocks[level:]:
        tokens = block(tokens)
    return head(tokens)


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", MIXERS)
def test_features_and_gradients_are_those_of_the_plain_reference(name, level, compute):
    encoder = tiny_model(seed=5, mixing_level=level)
    features, encoded, gradients = features_and_gradients(encoder, lambda: image_features(encoder, name, compute))
    expected, _, expected_gradients = features_and_gradients(encoder, lambda: (reference(encoder, level, encoded.plan, compute), None))
    torch.testing.assert_close(features, expected, rtol=0, atol=5e-6)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[parameter], rtol=1e-4, atol=2e-5, msg=parameter)


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("name", MIXERS)
def test_level_0_is_the_mixing_of_pixels(name, compute):
    pixels, tokens = tiny_model(seed=5), tiny_model(seed=5, mixing_level=0)
    features, encoded, gradients = features_and_gradients(tokens, lambda: image_features(tokens, name, compute))
    expected, plain, expected_gradients = features_and_gradients(pixels, lambda: image_features(pixels, name, compute))
    torch.testing.assert_close(encoded.plan.lam, plain.plan.lam)
    torch.testing.assert_close(features, expected, rtol=0, atol=5e-6)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[parameter], rtol=1e-4, atol=2e-5, msg=parameter)


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_plan_is_that_of_the_pixels(level, compute):
    """The scores are those of the clean pass, wherever mixing starts."""
    expected = image_features(tiny_model(seed=5), "relevance", compute)[1].plan
    plan = image_features(tiny_model(seed=5, mixing_level=level), "relevance", compute)[1].plan
    torch.testing.assert_close(plan.lam, expected.lam)
    assert plan.windows.target.equal(expected.windows.target) and plan.windows.source.equal(expected.windows.source)


@pytest.mark.parametrize(
    ("level", "extra", "replace"),
    [(None, "16 16 16", "14 14 8"), (0, "16 16 16", "14 14 8"), (1, "8 16 16", "8 14 8"), (2, "8 8 16", "8 8 8")],
)
def test_no_image_goes_through_a_block_without_need(level, extra, replace):
    """All of 8 rows are mixed with extra, 6 with replace, which scores after block 2 of 3."""
    for compute, expected in (("extra", extra), ("replace", replace)):
        encoder, images = tiny_model(mixing_level=level), [0, 0, 0]
        for number, block in enumerate(encoder.image.walk.blocks):

            def count(_, args, number=number, images=images):
                images[number] += len(args[0])

            block.register_forward_pre_hook(count)
        rows, partners = mixed_rows(8, 4, 1.0 if compute == "extra" else 0.75, seed=0, step=0, first=0)
        tokens = encoder.tokenizer(random_captions(8, seed=1))
        encoder(random_images(8, seed=1), tokens, mix=mix_step(TiMix(GRID), compute, rows, partners, 0, 0, 0))
        assert images == [int(number) for number in expected.split()]


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [None, 0, 1])
@pytest.mark.parametrize("name", ["timix", "mixup"])
def test_it_works_in_bf16(name, level, compute):
    """bf16 has 8 bits: features within a few hundredths of those in fp32, under the same plan."""
    exact, rounded = tiny_model(seed=5, mixing_level=level), tiny_model(seed=5, mixing_level=level).to(torch.bfloat16)
    captions = random_captions(8, seed=1)
    mix = mix_of(exact, name, compute, captions)
    inputs = random_images(8, seed=1), exact.tokenizer(captions)
    expected = exact(*inputs, mix=mix)
    for encoder, context in ((rounded, torch.no_grad()), (exact, torch.autocast("cpu", torch.bfloat16))):
        with context:
            encoded = encoder(*inputs, mix=replace(mix, planned=expected.plan))
        for one, other in (
            (encoded.image_features, expected.image_features),
            (encoded.mixed_image_features, expected.mixed_image_features),
        ):
            if one is not None:
                torch.testing.assert_close(one.float(), other, rtol=0, atol=0.05)


@pytest.mark.parametrize("level", [0, 2])
def test_a_timm_tower_mixes_tokens_too(level):
    encoder = DualEncoder.create("test-timm-vit", pta_block=2, mixing_level=level)
    plain = DualEncoder.create("test-timm-vit", pta_block=2)
    plain.load_state_dict(encoder.state_dict())
    images = torch.randint(0, 256, (4, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, partners = mixed_rows(4, 4, 1.0, seed=0, step=0, first=0)
    tokens = encoder.tokenizer(random_captions(4, seed=0))
    with torch.no_grad():
        features, expected = (
            model(images, tokens, mix=mix_step(TiMix((10, 10)), "extra", rows, partners, 0, 0, 0)).mixed_image_features
            for model in (encoder, plain)
        )
    assert torch.allclose(features, expected, rtol=0, atol=1e-5) == (level == 0)
    assert features.isfinite().all()
