"""Which columns are drawn together, under which titles."""

import pytest

from timix_pl.building.evaluators import built_in_metric
from timix_pl.reports.charts import charts
from timix_pl.reports.run import read_run


@pytest.fixture
def drawn(tmp_path):
    """The charts of a run of an earlier version that has measured 0.5 of everything: what it learned, and how it ran."""

    def draw(*columns):
        (tmp_path / "metrics.csv").write_text(f"step,{','.join(columns)}\n5{',0.5' * len(columns)}\n")
        return charts(read_run(tmp_path, built_in_metric))

    return draw


def titles(drawn):
    return [[chart.title for chart in part] for part in drawn]


def test_evaluations_stand_with_what_was_learned_and_columns_of_training_with_how_it_ran(drawn):
    charts = drawn("knn/top_1", "own/held_out", "train/own", "train/lr")
    assert titles(charts) == [["kNN, top 1", "Own, held out"], ["Learning rate", "train/own"]]


def test_each_column_of_training_has_its_unit(drawn):
    """Half of the device's peak, a learning rate of one half, and a column that nothing is known of."""
    _, running = drawn("train/mfu", "train/lr", "train/own")
    assert {chart.title: chart.lines[0].last for chart in running} == {
        "Learning rate": "0.5",
        "Model FLOPs utilisation": "50%",
        "train/own": "0.5",
    }


def test_a_loss_term_of_any_name_is_drawn_with_the_losses(drawn):
    (chart,), _ = drawn("train/loss/total", "train/loss/info_nce", "train/loss/of_mine")
    assert [(line.label, line.last) for line in chart.lines] == [("total", "0.5"), ("InfoNCE", "0.5"), ("of mine", "0.5")]


def test_errors_are_no_shares(drawn):
    learning, _ = drawn("grounding/patch_ap", "grounding/patch_brier_score")
    assert [(chart.title, chart.note, chart.lines[0].last) for chart in learning] == [
        ("Grounding, per patch", "", "50%"),
        ("Grounding, errors per patch", "lower is better", "0.5"),
    ]


def test_metrics_of_a_kind_share_a_chart(drawn):
    charts = drawn(
        *(f"retrieval/image_to_text/{name}" for name in ("recall_at_1", "map_at_10", "median_rank", "mean_rank")),
        "grounding/pointing",
        "grounding/pointing_centre",
    )
    assert titles(charts)[0] == ["Retrieval, image to text", "Retrieval, median and mean rank", "Grounding, per phrase"]
