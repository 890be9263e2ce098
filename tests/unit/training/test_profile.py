"""The trace of a few steps: which, with which names, and nothing left behind."""

import gzip
import json
import logging

import pytest

from tests.tiny import GRID, tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, training_module, weights_of
from timix_pl.mixing.step import MixStep
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.callbacks.profile import ProfileCallback

PARTS = {"wait for data", "image tower", "text tower", "PTA head", "plan mixing", "mix", "loss", "backward", "Optimizer.step#AdamW.step"}


def traced(tmp_path, first, last, *, num_steps=5, callbacks=()):
    model = tiny_model()
    module = training_module(model, num_steps=num_steps)
    mixing = MixingCallback(TiMix(GRID), group_size=4)
    fit(module, ready_batches(model, num_steps), callbacks=[mixing, *callbacks, ProfileCallback(tmp_path / "profile", first, last)])
    return module


def events(tmp_path):
    with gzip.open(tmp_path / "profile" / "rank0.pt.trace.json.gz") as file:
        return [event for event in json.load(file)["traceEvents"] if event.get("cat") == "user_annotation"]


def inside(event, outer):
    return outer["ts"] <= event["ts"] and event["ts"] + event["dur"] <= outer["ts"] + outer["dur"] + 1


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 3), (4, 9)])
def test_the_trace_holds_the_steps_asked_for_and_names_their_parts(tmp_path, first, last):
    traced(tmp_path, first, last)
    found = events(tmp_path)
    steps = {event["name"]: event for event in found if event["name"].startswith("step ")}
    assert list(steps) == [f"step {number}" for number in range(first, min(last, 5) + 1)]
    assert {event["name"] for event in found} >= PARTS
    for step in steps.values():
        assert {event["name"] for event in found if inside(event, step)} >= PARTS - {"wait for data"}
    table = (tmp_path / "profile" / "rank0.operators.txt").read_text()
    assert "aten::addmm" in table and "Self CPU" in table


def test_a_traced_run_learns_the_same_and_nothing_is_left_behind(tmp_path):
    plan, names = MixStep.plan, []
    watch = AtEachStep(before=lambda module: names.append(sorted({*vars(module), *vars(module.model.image), *vars(module.objective)})))
    module = traced(tmp_path, 2, 3, callbacks=[watch])
    assert names[0] == names[3] == names[4]
    assert MixStep.plan is plan and "manual_backward" not in vars(module)
    plain = training_module(tiny_model(), num_steps=5)
    fit(plain, ready_batches(plain.model, 5), callbacks=[MixingCallback(TiMix(GRID), group_size=4)])
    ours, theirs = weights_of(module), weights_of(plain)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_run_that_ends_before_says_that_nothing_was_traced(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "timix_pl"):
        traced(tmp_path, 7, 9)
    assert "profile=[7,9]: this start ended after step 5, so no step was traced" in caplog.text
    assert not (tmp_path / "profile").exists()


def test_a_run_that_fails_leaves_what_it_has_traced(tmp_path):
    def fail(module):
        if module.global_step == 2:
            raise ValueError("out of luck")

    with pytest.raises(ValueError, match="out of luck"):
        traced(tmp_path, 2, 4, callbacks=[AtEachStep(before=fail)])
    assert "step 2" in {event["name"] for event in events(tmp_path)}
    assert "plan" in vars(MixStep)
