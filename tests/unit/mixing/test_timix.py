"""TiMix's windows, lam and images against loops over windows and pixels."""

import numpy as np
import pytest
import torch

from tests.tiny import mix_rows
from tests.unit.mixing.brute_force import best_windows, distinct_images, pasted, relevance_lam
from timix_pl.core.errors import ShapeError
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix


def random_logits(num_images, grid, seed, scale=3.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(-1, scale, (num_images, grid[0] * grid[1]))).float()


def plan_of(mixer, logits, group_size, ratio, *, seed=0, step=0, first=0):
    rows, partners = mixed_rows(len(logits), group_size, ratio, seed=seed, step=step, first=first)
    return mixer.plan(mix_rows(rows, partners, seed, step, first), logits)


@pytest.mark.parametrize("lam", ["area", "relevance"])
@pytest.mark.parametrize(
    ("grid", "patch", "batch_size", "group_size", "ratio"),
    [
        ((6, 6), (2, 2), 8, 8, 1.0),
        ((4, 7), (3, 3), 9, 9, 0.7),
        ((9, 5), (2, 4), 15, 5, 0.5),
        ((14, 14), (1, 1), 6, 3, 1.0),
        ((3, 3), (5, 5), 7, 7, 1.0),
    ],
)
def test_windows_lam_and_images_equal_brute_force(grid, patch, batch_size, group_size, ratio, lam):
    mixer = TiMix(grid, lam=lam)
    height, width = grid[0] * patch[0], grid[1] * patch[1]
    images = distinct_images(batch_size, height, width)
    sides = set()
    for step in range(6):
        logits = random_logits(batch_size, grid, seed=100 * step + batch_size)
        plan = plan_of(mixer, logits, group_size, ratio, seed=1, step=step)
        rows, partners, side = plan.rows.tolist(), plan.partners.tolist(), plan.windows.side
        scores = logits.double().numpy().reshape(-1, *grid)
        targets, sources = best_windows(scores, rows, partners, side)
        assert plan.windows.target.tolist() == [list(corner) for corner in targets]
        assert plan.windows.source.tolist() == [list(corner) for corner in sources]

        mixed = mixer.apply(images, plan)
        expected = pasted(images.numpy(), rows, partners, targets, sources, side, patch)
        np.testing.assert_array_equal(mixed.numpy(), expected)

        changed = (mixed != images[plan.rows]).any(1).double().mean((1, 2))
        if lam == "area":
            torch.testing.assert_close(1 - plan.lam.double(), changed, rtol=0, atol=1e-6)
        else:
            np.testing.assert_allclose(plan.lam.numpy(), relevance_lam(scores, rows, partners, targets, sources, side), atol=1e-5)
        assert side * side == round(float(changed[0]) * grid[0] * grid[1])
        sides.add(side)
    assert len(sides) > 1 or min(grid) == 3  # 3 x 3: floor(0.35 * 3) = 1 to floor(0.75 * 3) = 2


def test_nothing_is_written_to():
    logits, images = random_logits(6, (4, 4), seed=0), distinct_images(6, 8, 8)
    logits_before, images_before = logits.clone(), images.clone()
    mixer = TiMix((4, 4), lam="relevance")
    mixed = mixer.apply(images, plan_of(mixer, logits, 6, 1.0))
    mixed.zero_()
    assert logits.equal(logits_before) and images.equal(images_before)
    assert images._version == 0 and logits._version == 0


def test_no_gradient_flows_through_the_plan():
    logits = random_logits(4, (4, 4), seed=0).requires_grad_()
    plan = plan_of(TiMix((4, 4), lam="relevance"), logits, 4, 1.0)
    assert not plan.lam.requires_grad


def test_scores_are_compared_within_an_image_alone():
    """Shifting or stretching all scores of an image moves no window."""
    logits = random_logits(5, (6, 6), seed=4)
    other = logits * torch.tensor([[0.01], [30.0], [1.0], [2.0], [0.5]]) + torch.tensor([[50.0], [-7.0], [0.0], [1.0], [-80.0]])
    mixer = TiMix((6, 6))
    for step in range(4):
        one, two = (plan_of(mixer, x, 5, 1.0, step=step) for x in (logits, other))
        assert one.windows.target.equal(two.windows.target) and one.windows.source.equal(two.windows.source)


@pytest.mark.parametrize("value", [0.0, -200.0, 1e4])
@pytest.mark.parametrize("lam", ["area", "relevance"])
def test_constant_and_extreme_scores_give_finite_plans(value, lam):
    mixer = TiMix((5, 5), lam=lam)
    plan = plan_of(mixer, torch.full((4, 25), value), 4, 1.0)
    assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
    assert torch.isfinite(mixer.apply(distinct_images(4, 10, 10), plan)).all()


@pytest.mark.parametrize("lam", ["area", "relevance"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_make_the_plan_of_one(world_size, lam):
    grid, global_batch_size = (5, 7), 24
    mixer = TiMix(grid, lam=lam)
    logits = random_logits(global_batch_size, grid, seed=2)
    for step in (0, 7):
        whole = plan_of(mixer, logits, 6, 0.6, seed=8, step=step)
        local = global_batch_size // world_size
        parts = [
            plan_of(mixer, logits[first : first + local], 6, 0.6, seed=8, step=step, first=first)
            for first in range(0, global_batch_size, local)
        ]
        assert {part.windows.side for part in parts} == {whole.windows.side}
        assert torch.cat([part.rows + n * local for n, part in enumerate(parts)]).equal(whole.rows)
        assert torch.cat([part.partners + n * local for n, part in enumerate(parts)]).equal(whole.partners)
        assert torch.cat([part.windows.target for part in parts]).equal(whole.windows.target)
        assert torch.cat([part.windows.source for part in parts]).equal(whole.windows.source)
        assert torch.cat([part.lam for part in parts]).equal(whole.lam)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1)])
def test_a_grid_too_small_for_the_side_range_is_refused(grid):
    with pytest.raises(ShapeError, match=f"{grid[0]} x {grid[1]}") as error:
        plan_of(TiMix(grid), random_logits(2, grid, seed=0), 2, 1.0)
    assert "`max_side=0.75`" in str(error.value)


def test_a_window_that_always_covers_the_whole_image_is_refused():
    with pytest.raises(ShapeError, match=r"`min_side=1"):
        plan_of(TiMix((4, 4), min_side=1.0, max_side=1.0), random_logits(2, (4, 4), seed=0), 2, 1.0)
