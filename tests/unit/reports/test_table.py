import doctest

from timix_pl.reports import table
from timix_pl.reports.table import results_table


def test_each_metric_stands_beside_chance_and_says_how_many_times_better_it_is():
    metrics = {"retrieval/mean_recall": 0.5, "retrieval/image_to_text/median_rank": 4.0, "zero_shot/top_1": 0.02, "other/accuracy": 1.0}
    metrics["captioning/cider_d"] = 1.134
    chance = {"retrieval/mean_recall": 0.01, "retrieval/image_to_text/median_rank": 32.5, "zero_shot/top_1": 0.04}
    _, _, *rows = results_table(metrics, chance).splitlines()
    assert [row.split() for row in rows] == [
        ["retrieval/mean_recall", "50.0%", "1.0%", "50", "×"],
        ["retrieval/image_to_text/median_rank", "4", "32.5", "8.1", "×"],  # a rank: lower is better
        ["zero_shot/top_1", "2.0%", "4.0%", "0.5", "×"],
        ["other/accuracy", "100.0%", "-"],
        ["captioning/cider_d", "113.4", "-"],  # no share; as papers have it
    ]


def test_errors_are_better_where_they_are_lower():
    table = results_table({"a/patch_brier_score": 0.1}, {"a/patch_brier_score": 0.2})
    assert table.splitlines()[-1].split()[-2:] == ["2.0", "×"]


def test_nothing_is_a_multiple_of_a_negative_chance():
    table = results_table({"a/drop_best": 0.1, "b/drop_best": -0.1}, {"a/drop_best": -0.1, "b/drop_best": 0.1})
    assert "×" not in table


def test_figures_that_cannot_be_compared_stay_in_the_table():
    table = results_table(
        {"a/zero_chance": 0.5, "a/undefined": float("nan"), "a/tiny": 0.00001}, {"a/zero_chance": 0.0, "a/undefined": 0.5}
    )
    assert [row.split() for row in table.splitlines()[2:]] == [
        ["a/zero_chance", "50.0%", "0.0%"],
        ["a/undefined", "undefined", "50.0%"],
        ["a/tiny", "0.001%", "-"],
    ]


def test_the_example_in_its_docstring_holds():
    assert doctest.testmod(table) == (0, 1)


def test_columns_are_aligned():
    lines = results_table({"a": 0.5, "much_longer": 1.0}, {"a": 0.1, "much_longer": 0.001}).splitlines()
    assert len({len(line) for line in lines}) == 1
