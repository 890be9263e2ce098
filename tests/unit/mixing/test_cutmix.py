"""CutMix: a random window, the same place in both images."""

from collections import Counter

import pytest
import torch

from tests.tiny import mix_rows
from tests.unit.mixing.brute_force import distinct_images, pasted
from timix_pl.core.errors import ShapeError
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix


def plan_of(mixer, batch_size, group_size, ratio, *, seed=0, step=0, first=0):
    rows, partners = mixed_rows(batch_size, group_size, ratio, seed=seed, step=step, first=first)
    return mixer.plan(mix_rows(rows, partners, seed, step, first))


@pytest.mark.parametrize(("grid", "batch_size", "group_size", "ratio"), [((4, 6), 7, 7, 1.0), ((7, 3), 10, 5, 0.5), ((8, 8), 6, 2, 1.0)])
def test_images_equal_brute_force_and_lam_is_the_share_kept(grid, batch_size, group_size, ratio):
    mixer, patch = CutMix(grid), (2, 3)
    images = distinct_images(batch_size, grid[0] * patch[0], grid[1] * patch[1])
    before = images.clone()
    for step in range(5):
        plan = plan_of(mixer, batch_size, group_size, ratio, step=step)
        corners = [tuple(corner) for corner in plan.windows.target.tolist()]
        assert plan.windows.source.equal(plan.windows.target)
        mixed = mixer.apply(images, plan)
        expected = pasted(images.numpy(), plan.rows.tolist(), plan.partners.tolist(), corners, corners, plan.windows.side, patch)
        assert mixed.equal(torch.from_numpy(expected))
        changed = (mixed != images[plan.rows]).any(1).double().mean((1, 2))
        torch.testing.assert_close(1 - plan.lam.double(), changed, rtol=0, atol=1e-6)
    assert images.equal(before)


def test_windows_are_drawn_from_the_whole_grid_for_each_image_alone():
    mixer = CutMix((5, 8), min_side=0.4, max_side=0.4)  # a side of 2: 4 x 7 places
    corners = Counter(tuple(corner) for step in range(280) for corner in plan_of(mixer, 20, 20, 1.0, step=step).windows.target.tolist())
    assert set(corners) == {(y, x) for y in range(4) for x in range(7)}
    assert all(abs(count - 200) < 75 for count in corners.values())  # 5 standard deviations


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_make_the_plan_of_one(world_size):
    mixer, local = CutMix((6, 6)), 24 // world_size
    whole = plan_of(mixer, 24, 6, 0.7, seed=2, step=3)
    parts = [plan_of(mixer, local, 6, 0.7, seed=2, step=3, first=first) for first in range(0, 24, local)]
    assert torch.cat([part.windows.target for part in parts]).equal(whole.windows.target)
    assert torch.cat([part.rows + n * local for n, part in enumerate(parts)]).equal(whole.rows)
    assert {part.windows.side for part in parts} == {whole.windows.side}


def test_a_grid_too_small_is_refused():
    with pytest.raises(ShapeError, match="1 x 1"):
        plan_of(CutMix((1, 1)), 2, 2, 1.0)
