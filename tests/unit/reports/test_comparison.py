import json

import pytest

from tests.fake_run import METRICS, make_fake_run
from timix_pl.building.evaluators import built_in_metric
from timix_pl.reports.comparison import differing_settings, final_figures, how_they_ran, write_comparison
from timix_pl.reports.run import read_run


@pytest.fixture
def run_dirs(tmp_path):
    timix, plain = (make_fake_run(tmp_path / name, num_steps=200, num_pictures=0) for name in ("timix", "plain"))
    config = plain / "config.yaml"
    config.write_text(config.read_text().replace("kind: timix", "kind: none").replace("name: demo", "name: plain"))
    metrics = METRICS | {"zero_shot/top_1": 0.9, "retrieval/text_to_image/median_rank": 9.0}
    del metrics["grounding/pointing"]
    (plain / "evaluation.json").write_text(json.dumps({"step": 200, "metrics": metrics, "chance": {}}))
    return [timix, plain]


def test_only_settings_that_differ_are_listed(run_dirs):
    assert [(row.label, row.cells) for row in differing_settings([read_run(d, built_in_metric) for d in run_dirs])] == [
        ("mixing.kind", ["timix", "none"])
    ]


def test_the_better_run_of_each_metric_is_marked(run_dirs):
    rows = {row.label: row for row in final_figures([read_run(d, built_in_metric) for d in run_dirs])}
    assert rows["zero_shot/top_1"].best == [False, True]
    assert rows["retrieval/text_to_image/median_rank"].best == [True, False]
    assert rows["retrieval/mean_recall"].best == [False, False]  # a tie
    assert rows["grounding/pointing"].cells == ["87.4%", ""]


def test_speed_and_time_stand_beside_each_other(run_dirs):
    rows = {row.label: row.cells for row in how_they_ran([read_run(d, built_in_metric) for d in run_dirs])}
    assert rows["Time"] == ["6 min 12 s", "6 min 12 s"] and rows["Throughput"] == ["206 samples/s", "206 samples/s"]
    assert rows["Peak memory"] == ["1.50 GB", "1.50 GB"] and "Model FLOPs utilisation" not in rows


def test_the_page_names_the_runs_apart(run_dirs, tmp_path):
    out = tmp_path / "comparison.html"
    html = write_comparison(run_dirs, out).read_text()
    assert ">demo<" in html and ">plain<" in html and "mixing.kind" in html and "206 samples/s" in html
    html = write_comparison([run_dirs[0], run_dirs[0]], out).read_text()
    assert str(run_dirs[0]) in html and "None: the runs have the same configuration" in html
