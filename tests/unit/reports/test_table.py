import doctest

from timix_pl.core.metric import Metric, Unit
from timix_pl.reports import table
from timix_pl.reports.table import results_table

SHARE, RANK, ERROR = Metric(Unit.share, True), Metric(Unit.rank, False), Metric(higher_is_better=False)


def rows(metrics, chance, **descriptions):
    return [row.split() for row in results_table(metrics, chance, descriptions).splitlines()[2:]]


def test_each_metric_stands_beside_chance_and_says_how_many_times_better_it_is():
    metrics = {"recall": 0.5, "rank": 4.0, "top": 0.02, "accuracy": 1.0, "cider": 1.134, "unknown": 23.4}
    chance = {"recall": 0.01, "rank": 32.5, "top": 0.04, "unknown": 2.0}
    assert rows(metrics, chance, recall=SHARE, rank=RANK, top=SHARE, accuracy=SHARE, cider=Metric(Unit.score, True)) == [
        ["recall", "50.0%", "1.0%", "50", "×"],
        ["rank", "4", "32.5", "8.1", "×"],  # lower is better
        ["top", "2.0%", "4.0%", "0.5", "×"],
        ["accuracy", "100.0%", "-"],
        ["cider", "113.4", "-"],  # no share; as papers have it
        ["unknown", "23.4", "2.000"],  # nobody said what it is
    ]


def test_errors_are_better_where_they_are_lower():
    assert rows({"error": 0.1}, {"error": 0.2}, error=ERROR) == [["error", "0.100", "0.200", "2.0", "×"]]


def test_nothing_is_a_multiple_of_a_negative_chance():
    drop = Metric(higher_is_better=True)
    assert rows({"a": 0.1, "b": -0.1}, {"a": -0.1, "b": 0.1}, a=drop, b=drop) == [["a", "0.100", "-0.100"], ["b", "-0.100", "0.100"]]


def test_figures_that_cannot_be_compared_stay_in_the_table():
    metrics = {"zero_chance": 0.5, "undefined": float("nan"), "tiny": 0.00001}
    assert rows(metrics, {"zero_chance": 0.0, "undefined": 0.5}, **dict.fromkeys(metrics, SHARE)) == [
        ["zero_chance", "50.0%", "0.0%"],
        ["undefined", "undefined", "50.0%"],
        ["tiny", "0.001%", "-"],
    ]


def test_the_example_in_its_docstring_holds():
    assert doctest.testmod(table).failed == 0 < doctest.testmod(table).attempted


def test_columns_are_aligned():
    accuracies = {"a": SHARE, "much_longer": SHARE}
    lines = results_table({"a": 0.5, "much_longer": 1.0}, {"a": 0.1, "much_longer": 0.001}, accuracies).splitlines()
    assert len({len(line) for line in lines}) == 1
