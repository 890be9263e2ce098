"""What one forward pass of a training step gives, for each way of mixing, against passes made by hand."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import GRID, mix_rows, mix_step, random_captions, random_images, tiny_model
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix

MIXERS = {
    "timix": TiMix(GRID),
    "relevance": TiMix(GRID, lam="relevance"),
    "cutmix": CutMix(GRID),
    "mixup": Mixup(GRID),
    "mixgen": MixGen(GRID),
}


@pytest.fixture(scope="module")
def encoder():
    return tiny_model(seed=5).eval()


@torch.no_grad()
@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("name", MIXERS)
def test_mixed_features_are_those_of_the_mixed_pictures(encoder, name, compute):
    mixer = MIXERS[name]
    images, captions = random_images(8, seed=1), random_captions(8, seed=1)
    tokens = encoder.tokenizer(captions)
    rows, partners = mixed_rows(8, 4, 0.75, seed=2, step=3, first=8)
    joined_captions = [f"{captions[row]} {captions[partner]}" for row, partner in zip(rows.tolist(), partners.tolist(), strict=True)]
    joined = encoder.tokenizer(joined_captions) if name == "mixgen" else None
    before = images.clone()
    encoded = encoder(images, tokens, mix=mix_step(mixer, compute, rows, partners, 2, 3, 8, joined))
    assert images.equal(before)

    logits = encoder.patch_scores(images, tokens).flatten(1)
    plan = mixer.plan(mix_rows(rows, partners, 2, 3, 8), logits)
    assert encoded.plan.rows.equal(rows) and encoded.plan.partners.equal(partners)
    torch.testing.assert_close(encoded.plan.lam, plan.lam)
    if plan.windows is not None:
        assert encoded.plan.windows.target.equal(plan.windows.target) and encoded.plan.windows.source.equal(plan.windows.source)
    mixed_pictures = mixer.apply(images.float(), plan)
    mixed_features = encoder.encode_image(mixed_pictures)
    if compute == "extra":
        torch.testing.assert_close(encoded.image_features, encoder.encode_image(images), rtol=0, atol=2e-6)
        torch.testing.assert_close(encoded.mixed_image_features, mixed_features, rtol=0, atol=5e-6)
        torch.testing.assert_close(encoded.text_features, encoder.encode_text(tokens), rtol=0, atol=2e-6)
        assert (encoded.mixed_text_features is None) == (name != "mixgen")
    else:
        expected = encoder.encode_image(images)
        expected[rows] = mixed_features
        torch.testing.assert_close(encoded.image_features, expected, rtol=0, atol=5e-6)
        assert encoded.mixed_image_features is None
    if name == "mixgen":
        joined_features = encoder.encode_text(joined)
        if compute == "extra":
            torch.testing.assert_close(encoded.mixed_text_features, joined_features, rtol=0, atol=2e-6)
        else:
            expected = encoder.encode_text(tokens)
            expected[rows] = joined_features
            torch.testing.assert_close(encoded.text_features, expected, rtol=0, atol=2e-6)
    assert encoded.joined == (name == "mixgen")


@torch.no_grad()
@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("name", MIXERS)
def test_a_plan_made_before_is_used_again_without_scoring(encoder, name, compute, monkeypatch):
    images, captions = random_images(8, seed=1), random_captions(8, seed=1)
    tokens = encoder.tokenizer(captions)
    rows, partners = mixed_rows(8, 4, 0.75, seed=2, step=3, first=8)
    joined = encoder.tokenizer(MixGen(GRID).join(captions, rows, partners)) if name == "mixgen" else None
    mix = mix_step(MIXERS[name], compute, rows, partners, 2, 3, 8, joined)
    encoded = encoder(images, tokens, mix=mix)

    def scored(*_):
        raise AssertionError("patches were scored")

    monkeypatch.setattr(encoder.pta, "forward", scored)
    again = encoder(images, tokens, mix=replace(mix, planned=encoded.plan))
    assert again.plan is encoded.plan
    assert again.image_features.equal(encoded.image_features) and again.text_features.equal(encoded.text_features)
    if compute == "extra":
        assert again.mixed_image_features.equal(encoded.mixed_image_features)
