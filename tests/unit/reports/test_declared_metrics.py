"""Metrics of an evaluator of somebody else's: shown by what ``evaluation.json`` says of them, which is all that is known of them here."""

import json

import pytest

from tests.unit.reports.test_page import _report
from timix_pl.reports.comparison import final_figures
from timix_pl.reports.run import read_run

DESCRIPTIONS = {
    "language/perplexity": {"higher_is_better": False, "label": "perplexity", "chance": "a uniform distribution"},
    "language/cross_entropy": {"unit": "nats", "higher_is_better": False, "label": "cross-entropy"},
    "language/psnr": {"unit": "number", "unit_word": "dB", "higher_is_better": True, "label": "PSNR"},
    "language/hits": {"unit": "share", "higher_is_better": True, "label": "hits"},
}
DESCRIPTIONS = {name: entry | {"group": "language model"} for name, entry in DESCRIPTIONS.items()}
COLUMNS = [*DESCRIPTIONS, "language/other"]  # of which nobody tells anything
FINAL, WORSE = (23.4, 2.5, 31.25, 0.5, 17.25), (30.0, 3.0, 25.0, 0.25, 5.0)


@pytest.fixture
def write_run(tmp_path):
    """A run with the figures of its last evaluation and of the one before."""

    def write(name, final=FINAL, earlier=WORSE):
        run_dir = tmp_path / name
        run_dir.mkdir()
        rows = [["step", *COLUMNS], [100, *earlier], [200, *final]]
        (run_dir / "metrics.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
        evaluation = {"step": 200, "metrics": dict(zip(COLUMNS, final, strict=True)), "chance": {"language/perplexity": 234.0}}
        (run_dir / "evaluation.json").write_text(json.dumps(evaluation | {"descriptions": DESCRIPTIONS}))
        return run_dir

    return write


def test_the_report_shows_them_as_they_are_declared(write_run):
    page = _report(write_run("a"))
    assert "Language model perplexity 23.4 234 10 × cross-entropy 2.500 nats - PSNR 31.2 dB - hits 50.0% -" in page.text
    assert "other 17.2 -" in page.text
    assert page.count("td", title="a uniform distribution") == 1
    assert page.count("div", **{"class": "bar"}) == 1


def test_an_earlier_value_is_better_in_the_metrics_own_direction(write_run):
    assert "No earlier evaluation of this run was better" in _report(write_run("a")).text
    text = _report(write_run("b", final=WORSE, earlier=FINAL)).text
    for better in ("23.4", "2.500 nats", "31.2 dB", "50.0%"):
        assert f"{better} at step 100" in text
    assert "17.2 at step 100" not in text  # nobody says that higher is better


def test_the_charts_have_their_units(write_run):
    page = _report(write_run("a"))
    assert "Language model, perplexity lower is better latest 23.4" in page.text
    assert "Language model, cross-entropy nats, lower is better latest 2.5" in page.text
    assert "Language model, PSNR dB latest 31.25" in page.text
    assert "Language model, hits latest 50%" in page.text
    assert "Language, other latest 17.25" in page.text


def test_the_lowest_is_marked_as_the_best_of_several_runs(write_run):
    runs = [read_run(write_run("a")), read_run(write_run("b", final=(40.0, 2.25, 30.0, 0.75, 3.0)))]
    assert {row.label: (row.cells, row.best) for row in final_figures(runs)} == {
        "language/perplexity": (["23.4", "40"], [True, False]),
        "language/cross_entropy": (["2.500 nats", "2.250 nats"], [False, True]),
        "language/psnr": (["31.2 dB", "30 dB"], [True, False]),
        "language/hits": (["50.0%", "75.0%"], [False, True]),
        "language/other": (["17.2", "3.000"], [False, False]),
    }
