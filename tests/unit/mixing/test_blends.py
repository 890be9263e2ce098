"""Mixup and MixGen: whole images blended."""

import numpy as np
import pytest
import torch

from tests.tiny import GRID, mix_rows
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup


def plan_of(mixer, batch_size, group_size, ratio, *, seed=0, step=0, first=0):
    rows, partners = mixed_rows(batch_size, group_size, ratio, seed=seed, step=step, first=first)
    return mixer.plan(mix_rows(rows, partners, seed, step, first))


@pytest.mark.parametrize(
    "mixer", [Mixup(GRID, beta=0.4), Mixup(GRID), MixGen(GRID), MixGen(GRID, own_share=0.3)], ids=lambda mixer: type(mixer).__name__
)
def test_images_are_the_weighted_mean_and_inputs_stay(mixer):
    images = torch.rand(9, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    plan = plan_of(mixer, 9, 9, 0.6)
    assert plan.windows is None and len(plan.rows) == 5
    mixed = mixer.apply(images, plan)
    for number, (row, partner, lam) in enumerate(zip(plan.rows.tolist(), plan.partners.tolist(), plan.lam.tolist(), strict=True)):
        expected = lam * before[row].double().numpy() + (1 - lam) * before[partner].double().numpy()
        np.testing.assert_allclose(mixed[number].numpy(), expected, atol=1e-6)
    assert images.equal(before)


@pytest.mark.parametrize("concentration", [0.2, 1.0, 3.0])
def test_mixups_lam_is_beta_distributed_and_each_image_has_its_own(concentration):
    lam = torch.cat([plan_of(Mixup(GRID, beta=concentration), 64, 64, 1.0, step=step).lam for step in range(100)]).double()
    assert ((lam >= 0) & (lam <= 1)).all()
    assert abs(float(lam.mean()) - 0.5) < 0.03
    assert float(lam.var()) == pytest.approx(1 / (4 * (2 * concentration + 1)), rel=0.1)
    assert len(plan_of(Mixup(GRID, beta=concentration), 64, 64, 1.0).lam.unique()) > 32


@pytest.mark.parametrize("mixer", [Mixup(GRID, beta=0.4), Mixup(GRID, beta=2.0), Mixup(GRID), MixGen(GRID)])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_make_the_plan_of_one(mixer, world_size):
    local = 24 // world_size
    whole = plan_of(mixer, 24, 6, 0.7, seed=2, step=3)
    parts = [plan_of(mixer, local, 6, 0.7, seed=2, step=3, first=first) for first in range(0, 24, local)]
    assert torch.cat([part.lam for part in parts]).equal(whole.lam)
    assert torch.cat([part.partners + n * local for n, part in enumerate(parts)]).equal(whole.partners)


def test_mixgen_joins_the_captions_of_the_two():
    rows, partners = torch.tensor([2, 0]), torch.tensor([0, 1])
    assert MixGen(GRID).join(["a dog", "a cat", "a bird"], rows, partners) == ["a bird a dog", "a dog a cat"]
    assert plan_of(MixGen(GRID), 4, 4, 1.0).lam.tolist() == [0.5] * 4
