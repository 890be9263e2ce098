"""Bad samples are written down and counted; too many stop the run."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.tiny import tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, training_module
from timix_pl.core.errors import DataError
from timix_pl.training.callbacks.bad_samples import BadSamplesCallback


def with_problems(batches, counts):
    """The n-th batch with ``counts[n]`` replaced samples and, in the first, one that was used in part."""

    def problems(step, count):
        facts = {"stream": "data.train_shards", "shard": "a.tar", "reason": "broken"}
        found = [facts | {"key": f"{step}-{n}", "outcome": "replaced by b"} for n in range(count)]
        return found if step else [*found, facts | {"key": "in part", "outcome": "used in part"}]

    return [replace(batch, problems=problems(n, counts[n])) for n, batch in enumerate(batches)]


def test_each_is_written_down_with_its_step_and_counted(tmp_path):
    model = tiny_model(with_pta=False)
    batches = with_problems(ready_batches(model, 3, regions=False), [2, 0, 1])
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    rows = fit(training_module(model), batches, callbacks=[callback])
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["step"], line["key"]) for line in lines] == [(1, "0-0"), (1, "0-1"), (1, "in part"), (3, "2-0")]
    assert {line["reason"] for line in lines} == {"broken"} and lines[0]["outcome"] == "replaced by b"
    assert [row["train/num_bad_samples"] for row in rows] == [2, 2, 3]


def test_replacements_that_are_bad_too_do_not_count_again(tmp_path):
    """A share of the samples read: a shard of bad samples alone counts for no more than its size."""
    facts = {"stream": "data.train_shards", "shard": "a.tar", "reason": "broken", "outcome": "replaced"}
    found = [facts | {"position": position, "key": str(key)} for position in (0, 5) for key in range(20)]
    found += [facts | {"stream": "data.region_shards", "position": 5, "key": "r"}]
    model = tiny_model(with_pta=False)
    (batch,) = ready_batches(model, 1, regions=False)
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    rows = fit(training_module(model), [replace(batch, problems=found)], callbacks=[callback])
    assert [row["train/num_bad_samples"] for row in rows] == [3]
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 41


def test_too_many_stop_the_run_and_say_where_to_look(tmp_path):
    model = tiny_model(with_pta=False)
    batches = with_problems(ready_batches(model, 3, regions=False), [300, 300, 300])
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8.25)
    with pytest.raises(DataError, match=r"`max_bad_frac=0\.5`: 600 of 16 samples .*quarantine\.jsonl"):
        fit(training_module(model), batches, callbacks=[callback])


def test_a_run_without_bad_samples_leaves_no_file(tmp_path):
    model = tiny_model(with_pta=False)
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.0, samples_per_step=8)
    fit(training_module(model), ready_batches(model, 1, regions=False), callbacks=[callback])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_between_two_logged_steps_knows_all_that_were_bad(tmp_path):
    model = tiny_model(with_pta=False)
    batches = with_problems(ready_batches(model, 4, regions=False), [2, 0, 1, 0])
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    saved = []
    note = AtEachStep(after=lambda module: saved.append(callback.state_dict()))
    fit(training_module(model, log_every_n_steps=100), batches, callbacks=[callback, note])
    assert saved == [{"num_bad": count} for count in (2, 2, 3, 3)]
    resumed = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    resumed.load_state_dict(saved[2])
    rows = fit(training_module(model), batches[:1], callbacks=[resumed])
    assert [row["train/num_bad_samples"] for row in rows] == [5]


@pytest.mark.parametrize(("step", "left"), [(0, None), (2, ["a", "b"]), (5, ["a", "b", "c"])])
def test_what_is_done_again_after_a_resume_is_not_written_down_twice(tmp_path, step, left):
    path = tmp_path / "quarantine.jsonl"
    lines = [json.dumps({"step": at, "key": key}) for at, key in ((1, "a"), (2, "b"), (5, "c"))]
    path.write_text("\n".join(lines) + '\n{"step": 1, "ke')  # a kill cut off the last line
    callback = BadSamplesCallback(path, max_bad_frac=0.5, samples_per_step=8)
    callback.on_train_start(SimpleNamespace(global_step=step, is_global_zero=True), None)
    assert ([json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else None) == left
