from pathlib import Path

import pytest

from timix_pl.reports.header import duration, facts, settings, status
from timix_pl.reports.run import Run


@pytest.mark.parametrize(
    ("summary", "silent_s", "word", "says"),
    [
        ({"status": "finished"}, 1e6, "finished", ""),
        ({"status": "running"}, 20, "running", "still going"),
        ({}, 20, "running", "still going"),
        ({"status": "running"}, 7200, "silent", "wrote nothing for 2 h 00 min"),
        ({}, 7200, "unfinished", "did not reach its end"),
        ({"status": "failed"}, 20, "failed", "resume=auto"),
    ],
)
def test_the_state_of_a_run_in_words(summary, silent_s, word, says):
    run = Run(Path("r"), written_at_s=1000.0, summary=summary)
    shown, sentence = status(run, now_s=1000.0 + silent_s)
    assert shown == word
    assert says in sentence
    assert bool(sentence) == (word != "finished")


def test_facts_come_from_the_summary_or_else_from_the_curves():
    curves = {"consumed": [(5, 320.0)], "train/samples_per_s": [(5, 99.6)], "train/num_bad_samples": [(5, 2.0)]}
    going = dict(facts(Run(Path("r"), 0.0, config={"trainer": {"max_steps": 1200}}, history=curves)))
    assert going["Steps"] == "5 of 1,200"
    assert going["Pairs seen"] == "320"
    assert going["Throughput"] == "100 samples/s"
    assert going["Bad samples"] == "2"
    assert going["Last written"] == "1970-01-01 00:00 UTC"
    stale = {"status": "running", "steps": 9, "consumed": 64, "wall_s": 0.1, "samples_per_s": 3.0}
    assert going == dict(facts(Run(Path("r"), 0.0, config={"trainer": {"max_steps": 1200}}, summary=stale, history=curves)))
    summary = {"steps": 10, "consumed": 640, "num_train_samples": 256, "wall_s": 61, "num_parameters": {"image": 1_500_000, "pta": 20_000}}
    finished = dict(facts(Run(Path("r"), 0.0, summary=summary, history=curves)))
    assert finished["Pairs seen"] == "640 (2.5 passes over 256)"
    assert finished["Time"] == "1 min 01 s"
    assert finished["Parameters"] == "1.52 M (image 1.5 M, PTA 20 k)"


def test_the_settings_are_shown_as_people_type_them():
    run = Run(Path("r"), 0.0, config={"mixing": {"kind": "timix", "ratio": 0.5}, "seed": 0})
    assert settings(run) == ["mixing=timix", "mixing.ratio=0.5", "seed=0"]
    task = Run(Path("r"), 0.0, config={"mixing": {"kind": "none"}, "task": "vqa", "tune": {"towers": "last"}, "seed": 0})
    assert settings(task) == ["task=vqa", "tune.towers=last", "seed=0"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3_725, "1 h 02 min"), (90_000, "1 d 1 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
