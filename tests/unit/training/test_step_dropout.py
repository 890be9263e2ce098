"""Patch dropout in a run: drawn from its seed, the step, and the batch's position."""

from tests.tiny import random_pairs, tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, training_module
from timix_pl.models.patch_dropout import PatchDropout


def dropouts_of_a_run(**options):
    """What the model gets in each step, and what it would get on another rank."""
    model, seen, elsewhere = tiny_model(**options), [], []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs.get("dropout")), with_kwargs=True)
    pairs = random_pairs(model, 2, seed=0, first=16)
    watch = AtEachStep(before=lambda module: elsewhere.append(module.dropout(pairs)))
    fit(training_module(model, num_steps=3, seed=7), ready_batches(model, 3), callbacks=[watch])
    return seen, elsewhere


def test_each_step_and_each_rank_drops_patches_of_its_own():
    seen, elsewhere = dropouts_of_a_run(patch_dropout=0.5)
    assert seen == [PatchDropout(0.5, 7, step, 0) for step in range(3)]
    assert elsewhere == [PatchDropout(0.5, 7, step, 16) for step in range(3)]


def test_nothing_is_dropped_unless_asked_for():
    assert dropouts_of_a_run() == ([None] * 3, [None] * 3)
