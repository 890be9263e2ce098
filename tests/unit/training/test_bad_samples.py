"""Bad samples are written down and counted; too many stop the run."""

import json

import pytest

from tests.tiny import tiny_model
from tests.unit.training.running import fit, ready_batches, training_module
from timix_pl.core.errors import DataError
from timix_pl.training.callbacks.bad_samples import BadSamplesCallback


def with_problems(batches, counts):
    """The n-th batch with ``counts[n]`` replaced samples and, in the first, one that was used in part."""

    def problems(step, count):
        facts = {"stream": "data.train_shards", "shard": "a.tar", "reason": "broken"}
        found = [facts | {"key": f"{step}-{n}", "outcome": "replaced by b"} for n in range(count)]
        return found if step else [*found, facts | {"key": "in part", "outcome": "used in part"}]

    return [(pairs._replace(problems=problems(n, counts[n])), regions) for n, (pairs, regions) in enumerate(batches)]


def test_each_is_written_down_with_its_step_and_counted(tmp_path):
    model = tiny_model(with_pta=False)
    batches = with_problems(ready_batches(model, 3, regions=False), [2, 0, 1])
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    rows = fit(training_module(model), batches, callbacks=[callback])
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["step"], line["key"]) for line in lines] == [(1, "0-0"), (1, "0-1"), (1, "in part"), (3, "2-0")]
    assert {line["reason"] for line in lines} == {"broken"} and lines[0]["outcome"] == "replaced by b"
    assert [row["train/num_bad_samples"] for row in rows] == [2, 2, 3]


def test_too_many_stop_the_run_and_say_where_to_look(tmp_path):
    model = tiny_model(with_pta=False)
    batches = with_problems(ready_batches(model, 3, regions=False), [300, 300, 300])
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.5, samples_per_step=8)
    with pytest.raises(DataError, match=r"data\.max_bad_frac=0\.5: 600 of 16 .*quarantine\.jsonl"):
        fit(training_module(model), batches, callbacks=[callback])


def test_a_run_without_bad_samples_leaves_no_file(tmp_path):
    model = tiny_model(with_pta=False)
    callback = BadSamplesCallback(tmp_path / "quarantine.jsonl", max_bad_frac=0.0, samples_per_step=8)
    fit(training_module(model), ready_batches(model, 1, regions=False), callbacks=[callback])
    assert list(tmp_path.iterdir()) == []
