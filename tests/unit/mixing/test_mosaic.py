"""Mosaics: random blocks of the partner, at the same place."""

import pytest
import torch

from tests.tiny import mix_rows
from tests.unit.mixing.brute_force import distinct_images
from timix_pl.mixing.groups import mixed_rows, num_mixed_rows
from timix_pl.mixing.mosaic import draw_mosaics
from timix_pl.mixing.step import MixStep
from timix_pl.mixing.strategies.cutmix import CutMix


def step_of(grid, batch_size, group_size, ratio, frac, *, seed=0, step=0, first=0):
    rows, partners = mixed_rows(batch_size, group_size, ratio, seed=seed, step=step, first=first)
    mosaics = draw_mosaics(
        batch_size,
        grid,
        group_size=group_size,
        num_mixed=num_mixed_rows(group_size, ratio),
        frac=frac,
        seed=seed,
        step=step,
        first=first,
    )
    return MixStep(mixer=CutMix(grid), compute="extra", chosen=mix_rows(rows, partners, seed, step, first), mosaics=mosaics)


@pytest.mark.parametrize(("grid", "frac"), [((4, 6), 0.5), ((7, 3), 1.0), ((5, 8), 0.25)])
def test_each_patch_is_the_rows_own_or_the_partners_as_the_plan_says(grid, frac):
    patch = (2, 3)
    images = distinct_images(12, grid[0] * patch[0], grid[1] * patch[1])
    before = images.clone()
    for number in range(3):
        step = step_of(grid, 12, 6, 1.0, frac, step=number)
        plan = step.plan()
        mixed, shown = step.apply(images, plan), step.shows_partner(plan)
        assert len(plan.mosaics.which) == round(frac * 6) * 2
        assert (plan.windows is None) == (frac == 1)
        for m, (row, partner) in enumerate(zip(plan.rows.tolist(), plan.partners.tolist(), strict=True)):
            if m not in plan.mosaics.which:
                continue
            for p in range(grid[0] * grid[1]):
                y, x = p // grid[1] * patch[0], p % grid[1] * patch[1]
                source = partner if shown[m, p] else row
                assert mixed[m, :, y : y + 2, x : x + 3].equal(images[source, :, y : y + 2, x : x + 3])
            assert plan.lam[m].item() == pytest.approx(1 - shown[m].float().mean().item())
    assert images.equal(before)


def test_other_mixed_images_keep_their_window():
    grid = (4, 6)
    images = distinct_images(6, 8, 18)
    step, plain = step_of(grid, 6, 6, 1.0, 0.5), step_of(grid, 6, 6, 1.0, 0.0)
    plan, expected = step.plan(), plain.mixer.plan(plain.chosen)
    assert plan.mosaics.which.tolist() == [0, 1, 2]
    assert step.apply(images, plan)[3:].equal(plain.mixer.apply(images, expected)[3:])
    assert plan.lam[3:].equal(expected.lam[3:])
    changed = (step.apply(images, plan) != images[plan.rows]).any(1)[3:, ::2, ::3].flatten(1)
    assert step.shows_partner(plan)[3:].equal(changed)


def test_blocks_are_two_by_two_and_half_of_them_are_the_partners():
    shown = torch.cat([step_of((6, 8), 16, 16, 1.0, 1.0, step=number).plan().mosaics.inside for number in range(40)])
    blocks = shown.view(-1, 3, 2, 4, 2).transpose(2, 3).flatten(3)
    assert (blocks.all(3) | ~blocks.any(3)).all()
    assert blocks[..., 0].float().mean((0, 1, 2)).item() == pytest.approx(0.5, abs=0.03)
    assert len({tuple(row.tolist()) for row in shown}) > 540  # of 4096


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_draw_what_one_draws(world_size):
    local = 24 // world_size
    whole = step_of((6, 6), 24, 6, 0.7, 0.5, seed=2, step=3).mosaics
    parts = [step_of((6, 6), local, 6, 0.7, 0.5, seed=2, step=3, first=first).mosaics for first in range(0, 24, local)]
    assert torch.cat([part.inside for part in parts]).equal(whole.inside)
    mixed_per_rank = 4 * local // 6
    assert torch.cat([part.which + n * mixed_per_rank for n, part in enumerate(parts)]).equal(whole.which)
