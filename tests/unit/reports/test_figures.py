import pytest

from timix_pl.reports.figures import Figure, lower_is_better, value_text


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
    ],
)
def test_each_kind_of_metric_is_written_as_its_field_does(name, value, text, lower):
    assert value_text(name, value) == text
    assert lower_is_better(name) == lower


def test_only_shares_and_ranks_are_so_many_times_better_than_chance():
    assert Figure("zero_shot/top_1", 0.5, 0.1).times_text == "5.0 ×"
    assert Figure("a/median_rank", 5, 50).times_text == "10 ×"
    assert Figure("noise/train/loss_aligned", 4.0, 4.8).times_text == ""
    assert Figure("noise/train/loss_aligned", 4.0, 4.852).chance_text == "4.852"


def test_abbreviations_keep_their_capitals_as_titles():
    assert [Figure(name, 0.5, None).group for name in ("vqa/accuracy", "knn/top_1", "zero_shot/top_1")] == ["VQA", "kNN", "Zero-shot"]
