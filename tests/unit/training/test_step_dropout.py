"""Patch dropout in a run: drawn from its seed, the step, and the batch's position."""

from tests.tiny import tiny_model
from tests.unit.training.running import fit, ready_batches, training_module
from timix_pl.models.patch_dropout import PatchDropout


def dropouts_of_a_run(**options):
    model = tiny_model(**options)
    seen = []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["dropout"]), with_kwargs=True)
    batches = [(pairs._replace(first=16), regions) for pairs, regions in ready_batches(model, 3)]
    fit(training_module(model, num_steps=3, seed=7), batches)
    return seen


def test_each_step_drops_patches_of_its_own():
    assert dropouts_of_a_run(patch_dropout=0.5) == [PatchDropout(0.5, 7, step, 16) for step in range(3)]


def test_nothing_is_dropped_unless_asked_for():
    assert dropouts_of_a_run() == [None] * 3
