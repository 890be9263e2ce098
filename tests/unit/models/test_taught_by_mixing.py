"""Mixed images that teach the PTA head: logits and labels against images in which each pixel says which image it comes from."""

import pytest
import torch

from tests.tiny import GRID, mix_step, random_captions, random_images, taught_by, tiny_model
from timix_pl.core.errors import ModelError
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.patch_dropout import PatchDropout

B, GROUP, RATIO, PLACE = 12, 6, 0.7, {"seed": 2, "step": 3, "first": 12}
NUM_PATCHES = GRID[0] * GRID[1]


def teaching(mixer, compute, frac):
    rows, partners = mixed_rows(B, GROUP, RATIO, **PLACE)
    return taught_by(mix_step(mixer, compute, rows, partners, *PLACE.values()), B, GROUP, frac=frac)


def pairs(encoder):
    """Every third caption occurs twice: for rows 0 and 3, and so on."""
    captions = random_captions(B, seed=1)
    captions[3::3] = captions[0:-3:3]
    return random_images(B, seed=1), captions, encoder.tokenizer(captions)


@torch.no_grad()
@pytest.mark.parametrize("level", [None, 0, 2])
@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("frac", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", [TiMix, CutMix])
def test_a_patch_is_positive_under_the_captions_of_the_image_that_it_shows(kind, frac, compute, level):
    encoder = tiny_model(seed=5, mixing_level=level).eval()
    images, captions, tokens = pairs(encoder)
    mix = teaching(kind(GRID), compute, frac)
    encoded = encoder(images, tokens, mix=mix)
    plan = encoded.plan
    origin = mix.apply(torch.arange(B).view(-1, 1, 1, 1).expand(-1, 1, *GRID).float(), plan).flatten(1).long()
    next_of = dict(zip(plan.rows.tolist(), plan.partners.tolist(), strict=True))
    for text in range(3):
        for m, row in enumerate(plan.rows.tolist()):
            said = [row, next_of[row], next_of[next_of[row]]][text]
            expected = [float(captions[said] == captions[shown]) for shown in origin[m].tolist()]
            assert encoded.mixed_labels[text * len(plan.rows) + m].tolist() == expected
            if level is None:
                mixed = mix.apply(images.float(), plan)[m : m + 1]
                scores = encoder.patch_scores(mixed, tokens[said : said + 1]).flatten()
                torch.testing.assert_close(encoded.mixed_logits[text * len(plan.rows) + m], scores, rtol=0, atol=2e-5)
    assert encoded.touched == {"pta"}


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("options", [{"with_pta": False}, {"pta_block": 1, "mixing_level": 2}])
def test_a_head_that_cannot_see_the_mixed_images_is_refused(options, compute):
    encoder = tiny_model(**options)
    images, _, tokens = pairs(encoder)
    with pytest.raises(ModelError, match="with_pta=True"):
        encoder(images, tokens, mix=teaching(CutMix(GRID), compute, 0.5))


@torch.no_grad()
@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_dropped_patches_have_no_label(compute):
    encoder = tiny_model(seed=5, patch_dropout=0.5)
    images, _, tokens = pairs(encoder)
    mix = teaching(CutMix(GRID), compute, 0.5)
    dropout = PatchDropout(0.5, 2, 3, 12)
    dropped, whole = encoder(images, tokens, mix=mix, dropout=dropout), encoder(images, tokens, mix=mix)
    keep = dropout.keep(B, NUM_PATCHES, "mixed" if compute == "extra" else "clean")[mix.rows]
    assert dropped.mixed_labels.equal(whole.mixed_labels.gather(1, keep.repeat(3, 1)))
    assert dropped.mixed_logits.shape == dropped.mixed_labels.shape


@pytest.mark.parametrize(("grad", "taught"), [("head", {"pta"}), ("trunk", {"pta", "image"}), ("full", {"pta", "image", "text"})])
@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_gradients_reach_what_pta_grad_says(compute, grad, taught):
    encoder = tiny_model(seed=5, pta_grad=grad)
    images, _, tokens = pairs(encoder)
    encoder(images, tokens, mix=teaching(CutMix(GRID), compute, 0.5)).mixed_logits.sum().backward()
    moved = {name for name, part in encoder.parts().items() if any(p.grad is not None and p.grad.any() for p in part.parameters())}
    assert moved == taught
