"""Learning rate and mixing as functions of the samples consumed."""

import pytest
import torch

from tests.optim import optim_settings
from tests.tiny import GRID, tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, training_module
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.mixing import MixingCallback


def mixing_by_step(num_steps, callback, *, with_pta=False, **options):
    """What the module mixes with in each step of a run of 8 samples per step."""
    model = tiny_model(with_pta=with_pta)
    seen = []
    module = training_module(model, num_steps=num_steps, **options)
    fit(module, ready_batches(model, num_steps, regions=False), callbacks=[callback, AtEachStep(before=lambda m: seen.append(m.mixing))])
    return seen


def test_gamma_ramps_up_after_the_first_samples_and_mixing_ends_where_told():
    callback = MixingCallback(Mixup(GRID), ratio=0.5, gamma=2.0, warmup_frac=0.5, stop_frac=0.8, group_size=4, first_samples=16)
    seen = mixing_by_step(10, callback)  # 80 samples; steps begin after 0, 8, 16, ... of them
    gammas = [now.gamma if now else 0.0 for now in seen]
    assert gammas == pytest.approx([0, 0, 0, 0.4, 0.8, 1.2, 1.6, 2.0, 0, 0])
    assert {now.ratio for now in seen if now} == {0.5} and {now.compute for now in seen if now} == {"extra"}


def test_with_replace_the_ratio_ramps_up_and_gamma_is_not_used():
    seen = mixing_by_step(4, MixingCallback(Mixup(GRID), ratio=0.8, gamma=2.0, compute="replace", warmup_frac=1.0, group_size=4))
    assert [now.ratio if now else 0.0 for now in seen] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert all(now.gamma == 1.0 for now in seen if now)


def test_the_later_of_samples_and_share_of_the_run_counts():
    callback = MixingCallback(Mixup(GRID), group_size=4, first_samples=8, first_frac=0.5)
    assert [now is not None for now in mixing_by_step(6, callback)] == [False, False, False, True, True, True]
    callback = MixingCallback(Mixup(GRID), group_size=4, first_samples=32, first_frac=0.5)
    assert [now is not None for now in mixing_by_step(6, callback)] == [False, False, False, False, True, True]


def test_if_mixed_images_teach_all_are_mosaics_until_the_head_chooses_windows():
    callback = MixingCallback(TiMix(GRID), group_size=4, first_samples=16, teaches=True, mosaic_frac=0.5)
    seen = mixing_by_step(4, callback, with_pta=True)
    assert [now.mosaic_frac for now in seen] == [1.0, 1.0, 0.5, 0.5]
    assert {(now.gamma, now.teaches) for now in seen} == {(1.0, True)}


def test_without_a_ramp_mixing_is_whole_from_the_first_step_to_the_last():
    assert [now.gamma for now in mixing_by_step(3, MixingCallback(Mixup(GRID), group_size=4))] == [1.0] * 3


def test_the_samples_planned_at_the_start_decide_and_not_the_length_of_the_run():
    seen = mixing_by_step(4, MixingCallback(Mixup(GRID), stop_frac=0.5, group_size=4), planned_samples=32 * 2)
    assert all(seen)
    seen = mixing_by_step(4, MixingCallback(Mixup(GRID), stop_frac=0.5, group_size=4), planned_samples=32)
    assert [now is not None for now in seen] == [True, True, False, False]


def test_the_learning_rate_follows_its_schedule_also_beyond_the_plan():
    model = tiny_model(with_pta=False)
    optim = optim_settings(lr=1e-3, schedule="cosine", warmup_frac=0.5, min_lr=1e-4)
    module = training_module(model, optim=optim, planned_samples=32)
    rows = fit(module, ready_batches(model, 6, regions=False))
    assert [row["train/lr"] for row in rows] == pytest.approx([0.5e-3, 1e-3, 0.55e-3, 1e-4, 1e-4, 1e-4])
    assert {group["lr"] for group in module.optimizers().param_groups} == {1e-4}


def test_the_rate_of_a_step_is_the_one_it_is_made_with():
    """AdamW's first step moves each weight by the learning rate."""
    model = tiny_model(with_pta=False)
    before = model.logit_scale.item()
    optim = optim_settings(lr=1e-2, schedule="constant", warmup_frac=0.25, eps=1e-12)
    fit(training_module(model, optim=optim, planned_samples=128), ready_batches(model, 1, regions=False))
    assert abs(model.logit_scale.item() - before) == pytest.approx(1e-2 / 4, rel=1e-3)
    assert torch.isfinite(model.logit_scale).all()
