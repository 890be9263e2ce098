"""Which columns are drawn together, under which titles."""

from types import SimpleNamespace

from timix_pl.reports.charts import charts


def titles(*columns):
    run = SimpleNamespace(history={name: [(1, 0.5), (2, 0.25)] for name in columns}, figures=[], last_step=2)
    return [[chart.title for chart in part] for part in charts(run)]


def test_evaluations_stand_with_what_was_learned_and_columns_of_training_with_how_it_ran():
    assert titles("knn/top_1", "own/held_out", "train/own", "train/lr") == [["kNN, top 1", "Own, held-out"], ["Learning rate", "train/own"]]


def test_metrics_of_a_kind_share_a_chart():
    learning, _ = titles(
        *(f"retrieval/image_to_text/{name}" for name in ("recall_at_1", "map_at_10", "median_rank", "mean_rank")),
        "grounding/pointing",
        "grounding/pointing_centre",
    )
    assert learning == ["Retrieval, image to text", "Retrieval, median and mean rank", "Grounding, per phrase"]
