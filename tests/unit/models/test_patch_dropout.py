"""Patch dropout: which patches are kept, and that scores and plans stay right."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import GRID, mix_step, random_captions, random_images, random_regions, tiny_model
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.patch_dropout import PatchDropout

P = GRID[0] * GRID[1]
DROPOUT = PatchDropout(0.5, 2, 3, 8)


@pytest.mark.parametrize(("share", "num_kept"), [(0.0, 24), (0.25, 18), (0.5, 12), (0.99, 1)])
def test_each_row_keeps_as_many_patches(share, num_kept):
    keep = replace(DROPOUT, share=share).keep(6, P, "clean")
    assert keep.shape == (6, num_kept) and (keep.diff(dim=1) > 0).all() and keep.min() >= 0 and keep.max() < P


def test_patches_depend_on_seed_step_position_and_kind_alone():
    keep = DROPOUT.keep(8, P, "clean")
    parts = [replace(DROPOUT, first=8 + first).keep(size, P, "clean") for first, size in ((0, 3), (3, 1), (4, 4))]
    assert torch.cat(parts).equal(keep)
    for other in (replace(DROPOUT, seed=3), replace(DROPOUT, step=4), replace(DROPOUT, first=16)):
        assert not other.keep(8, P, "clean").equal(keep)
    assert not DROPOUT.keep(8, P, "mixed").equal(keep)
    assert not keep[0].equal(keep[1])


def test_every_patch_is_kept_as_often():
    counts = np.bincount(PatchDropout(0.75, 0, 0, 0).keep(8000, P, "clean").flatten(), minlength=P)
    deviation = (8000 * 0.25 * 0.75) ** 0.5
    assert abs(counts - 2000).max() < 4.5 * deviation


def pass_of(encoder, compute="extra", *, dropout=DROPOUT, part=slice(0, 8), ratio=1.0):
    images, tokens = random_images(8, seed=1)[part], encoder.tokenizer(random_captions(8, seed=1))[part]
    first = 8 + part.start
    rows, partners = mixed_rows(len(images), 4, ratio, seed=2, step=3, first=first)
    regions = random_regions(encoder, 2, 5, seed=3)
    dropout = dropout and replace(dropout, first=first)
    return encoder(images, tokens, mix=mix_step(TiMix(GRID), compute, rows, partners, 2, 3, first), regions=regions, dropout=dropout)


def loss_of(encoded):
    draw = torch.Generator().manual_seed(0)
    features = (encoded.image_features, encoded.text_features, encoded.mixed_image_features)
    return sum((f @ torch.randn(16, generator=draw)).square().sum() for f in features if f is not None)


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [None, 0])
def test_two_halves_are_the_whole(level, compute):
    """As two ranks have them, or two chunks of one."""
    encoder = tiny_model(patch_dropout=0.5, mixing_level=level)
    whole = pass_of(encoder, compute)
    loss_of(whole).backward()
    gradients = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    halves = [pass_of(encoder, compute, part=part) for part in (slice(0, 4), slice(4, 8))]
    for half in halves:
        loss_of(half).backward()
    for name in ("image_features", "mixed_image_features") if compute == "extra" else ("image_features",):
        together = torch.cat([getattr(half, name) for half in halves])
        torch.testing.assert_close(together, getattr(whole, name), rtol=0, atol=1e-6)
    for name, parameter in encoder.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_kept_patches_have_their_scores_and_dropped_ones_the_mean():
    encoder = tiny_model(patch_dropout=0.5)
    images, tokens = random_images(8, seed=1), encoder.tokenizer(random_captions(8, seed=1))
    keep = DROPOUT.keep(8, P, "clean")
    planned = {}

    class Watching(TiMix):
        def plan(self, chosen, scores):
            planned["logits"] = scores
            return super().plan(chosen, scores)

    rows, partners = mixed_rows(8, 4, 1.0, seed=2, step=3, first=8)
    encoder(images, tokens, mix=mix_step(Watching(GRID), "extra", rows, partners, 2, 3, 8), dropout=DROPOUT)
    pooled = encoder.text(tokens)[1]
    for number, row in enumerate(planned["logits"]):
        one = slice(number, number + 1)
        features = encoder.image(encoder.normalise(images[one]), keep=keep[one]).patch_features
        scores = encoder.pta(features, pooled[one])[0]
        torch.testing.assert_close(row[keep[number]], scores, rtol=0, atol=1e-6)
        dropped = np.setdiff1d(np.arange(P), keep[number])
        torch.testing.assert_close(row[dropped], scores.mean().expand(len(dropped)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_clean_and_mixed_images_are_dropped_from_and_region_images_and_passes_that_score_are_not():
    encoder = tiny_model(patch_dropout=0.5)
    lengths = []
    encoder.image.walk.blocks[0].register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[:2]))
    pass_of(encoder, "extra", ratio=0.5)
    assert lengths == [(8, 1 + P // 2), (4, 1 + P // 2), (2, 1 + P)]  # clean, mixed, regions
    lengths.clear()
    replaced = pass_of(encoder, "replace", ratio=0.5)
    assert lengths == [(4, 1 + P), (8, 1 + P // 2), (2, 1 + P)]  # scored, the one set, regions
    plan = pass_of(encoder, "replace", ratio=0.5, dropout=None).plan
    assert replaced.plan.windows.target.equal(plan.windows.target)


@torch.no_grad()
def test_nothing_is_dropped_in_evaluation_mode():
    encoder = tiny_model(patch_dropout=0.5).eval()
    dropped, whole = pass_of(encoder), pass_of(encoder, dropout=None)
    assert dropped.image_features.equal(whole.image_features) and dropped.mixed_image_features.equal(whole.mixed_image_features)
    assert not pass_of(encoder.train()).image_features.equal(whole.image_features)
