"""A step that is not finite touches nothing; the run stops with its name, or counts it and goes on."""

import math

import pytest
import torch

from tests.optim import optim_settings
from tests.tiny import tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, same, training_module, weights_of
from timix_pl.core.choices import OPTIMIZERS
from timix_pl.core.errors import NonFiniteError
from timix_pl.core.types import LossOutput
from timix_pl.training.objective import Contrastive, Objective


class FailsAt(Contrastive):
    """Broken in its n-th call: the loss, or its gradient alone."""

    def __init__(self, call, what):
        super().__init__()
        self.call, self.what, self.calls = call, what, 0

    def __call__(self, encoded, *, first, gamma=1.0):
        self.calls += 1
        if self.calls != self.call:
            return super().__call__(encoded, first=first, gamma=gamma)
        if self.what == "gradient":
            encoded.image_features.register_hook(lambda gradient: gradient * math.inf)
            return super().__call__(encoded, first=first, gamma=gamma)
        output = super().__call__(encoded, first=first, gamma=gamma)
        broken = output.loss * float(self.what)
        return LossOutput(broken, output.terms | {"info_nce": broken})


class States:
    """Weights and the optimizer's moments after each step."""

    def __init__(self):
        self.after = []

    def __call__(self, module):
        state = module.optimizers().optimizer.state_dict()["state"]
        moments = [value.clone() for values in state.values() for _, value in sorted(values.items())]
        self.after.append((weights_of(module.model), moments))


def same_weights(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
def test_the_run_stops_and_the_weights_are_those_of_the_step_before(what):
    model = tiny_model()
    states = States()
    module = training_module(model, objective=Objective(FailsAt(3, what)))
    batches = ready_batches(model, 6)
    with pytest.raises(NonFiniteError) as error:
        fit(module, batches, callbacks=[AtEachStep(after=states)])
    assert len(states.after) == 3  # the host learns of it before the fourth step
    assert same_weights(states.after[1][0], states.after[2][0])
    assert all(torch.equal(a, b) for a, b in zip(states.after[1][1], states.after[2][1], strict=True))
    assert same_weights(states.after[1][0], weights_of(model))
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(model).values())
    message = str(error.value)
    assert "step 3:" in message  # as metrics.csv counts them
    assert "info_nce=" in message and "patch_text=" in message and "grad_norm=" in message
    if what != "gradient":
        assert f"info_nce={what}" in message
    assert all(key in message for key in batches[2].keys)
    assert "`non_finite=skip`" in message


def test_the_very_first_step_may_fail():
    model = tiny_model()
    before = weights_of(model)
    with pytest.raises(NonFiniteError, match="step 1:"):
        fit(training_module(model, objective=Objective(FailsAt(1, "nan"))), ready_batches(model, 3))
    assert same_weights(before, weights_of(model))


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
def test_the_very_first_step_may_be_left_out(kind):
    skipping, without = tiny_model(), tiny_model()
    batches = ready_batches(skipping, 3)
    options = {"optim": optim_settings(kind=kind, lr=1e-3, schedule="constant", warmup_frac=0.0)}
    fit(training_module(skipping, objective=Objective(FailsAt(1, "nan")), non_finite="skip", **options), batches)
    fit(training_module(without, **options), batches[1:])
    assert same_weights(weights_of(skipping), weights_of(without))


def test_the_last_step_is_looked_at_too():
    model = tiny_model()
    with pytest.raises(NonFiniteError, match="step 2:"):
        fit(training_module(model, objective=Objective(FailsAt(2, "nan"))), ready_batches(model, 2))


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
@pytest.mark.parametrize("what", ["nan", "gradient"])
def test_skipping_leaves_the_step_out_counts_it_and_goes_on(what, kind):
    """Four steps of which the third is left out are the first, second and fourth, for every optimizer and the average of the weights."""
    skipping, without, states = tiny_model(), tiny_model(), States()
    batches = ready_batches(skipping, 4)
    options = {"optim": optim_settings(kind=kind, lr=1e-3, schedule="constant", warmup_frac=0.0, ema=0.5)}
    module = training_module(skipping, objective=Objective(FailsAt(3, what)), non_finite="skip", **options)
    rows = fit(module, batches, callbacks=[AtEachStep(after=states)])
    reference = training_module(without, **options)
    fit(reference, [batches[n] for n in (0, 1, 3)])
    assert same_weights(states.after[1][0], states.after[2][0]) and all(map(torch.equal, states.after[1][1], states.after[2][1]))
    assert same(weights_of(module), weights_of(reference))
    assert module.num_skipped_steps == 1 and module.global_step == 4
    assert [row["train/num_skipped_steps"] for row in rows] == [0, 0, 0, 1]
    assert [row["consumed"] for row in rows] == [8, 16, 24, 32]  # a skipped step's samples are consumed
