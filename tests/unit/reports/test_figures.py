import pytest

from timix_pl.building.evaluators import built_in_metric
from timix_pl.core.metric import Metric, Unit
from timix_pl.reports.figures import Figure, value_text


@pytest.mark.parametrize(
    ("name", "value", "text", "lower"),
    [
        ("retrieval/image_to_text/mean_rank", 12345.6, "12,345.6", True),
        ("retrieval/text_to_image/map_at_10", 0.25, "25.0%", False),
        ("zero_shot/top_1", 0.5, "50.0%", False),
        ("mutual_information/held_out", 1.25, "1.250 nats", False),
        ("mutual_information/gap", -0.095, "-0.095 nats", True),
        ("noise/train/roc_auc", 0.592, "59.2%", False),
        ("noise/train/loss_aligned", 4.4, "4.400 nats", True),
        ("noise/train/loss_misaligned", 4.6, "4.600 nats", False),
        ("captioning/cider_d", 1.234, "123.4", False),
        ("captioning/bleu_4", 0.321, "32.1", False),
        ("captioning/rouge_l", 0.5, "50.0", False),
        ("carry_over/drop_least", -0.02, "-0.020", True),
        ("carry_over/drop_best", 0.02, "0.020", False),
        ("grounding/patch_calibration_error", 0.03, "0.030", True),
        ("vqa/accuracy", 0.654, "65.4%", False),
        ("vqa/open/accuracy/what_color", 0.654, "65.4%", False),
    ],
)
def test_each_kind_of_metric_is_written_as_its_field_does(name, value, text, lower):
    metric = built_in_metric(name)
    assert value_text(metric, value) == text
    assert metric.higher_is_better is not lower


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric(), 23.4, "23.4"),
        (Metric(), 0.5, "0.500"),
        (Metric(), 12345.0, "12,345"),
        (Metric(), 0.00002, "2e-05"),
        (Metric(), 0.0, "0.000"),
        (Metric(unit_word="dB"), 31.25, "31.2 dB"),
        (Metric(unit_word="dB"), float("nan"), "undefined"),
        (Metric(Unit.nats), 23.4, "23.400 nats"),
    ],
)
def test_numbers_have_as_many_digits_as_people_read(metric, value, text):
    assert value_text(metric, value) == text


ACCURACY, RANK, LOSS = Metric(Unit.share, True), Metric(Unit.rank, False), Metric(Unit.nats, False)


def test_a_multiple_of_chance_stands_only_where_it_means_something():
    assert Figure("a", ACCURACY, 0.5, 0.1).times_text == "5.0 ×"
    assert Figure("a", RANK, 5, 50).times_text == "10 ×"
    assert Figure("a", Metric(higher_is_better=False), 23.4, 234).times_text == "10 ×"
    assert Figure("a", Metric(higher_is_better=False), 0.036, 0.0).times_text == ""  # nothing is a multiple of 0
    assert Figure("a", LOSS, 4.0, 4.8).times_text == ""  # of logarithms
    assert Figure("a", Metric(), 4.0, 4.8).times_text == ""  # nobody said which is better


def test_chance_has_no_word_of_the_unit():
    assert Figure("a", LOSS, 4.0, 4.852).chance_text == "4.852"
    assert Figure("a", Metric(unit_word="dB"), 4.0, 31.2).chance_text == "31.2"


def test_abbreviations_keep_their_capitals_as_titles():
    names = ("vqa/accuracy", "knn/top_1", "zero_shot/top_1", "mutual_information/gap")
    assert [Figure(name, built_in_metric(name), 0.5).group for name in names] == ["VQA", "kNN", "Zero-shot", "Mutual information"]


def test_without_a_label_a_metric_has_its_name():
    figure = Figure("my_task/held_out/some_score", Metric(), 0.5)
    assert (figure.group, figure.label) == ("My task", "held out, some score")
