import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.core.errors import DataError
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot

CPU = torch.device("cpu")
CLASSES = ["0", "1", "2", "3", "4", "5", "6", "7"]


def run(items, classes=CLASSES, templates=("a {} here", "the {}"), **options):
    return ZeroShot(Items(items), classes, templates, **{"batch_size": 2, **options}).run(OracleModel(), CPU)


def test_figures_counted_by_hand():
    # The model sees 0, 1, 2, 3, 4. Right: 0, 1, 2. Wrong: 3 and 4, whose labels 0 and 5 tie with all other classes behind the one it sees.
    items = [item(0, label=0), item(1, label=1), item(2, label=2), item(3, label=0), item(4, label=5)]
    result = run(items)
    assert result.metrics["zero_shot/top_1"] == pytest.approx(3 / 5)
    assert result.metrics["zero_shot/top_5"] == pytest.approx(3 / 5)
    assert result.metrics["zero_shot/mean_per_class"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    assert result.chance == {"zero_shot/top_1": 1 / 8, "zero_shot/top_5": 5 / 8, "zero_shot/mean_per_class": 1 / 8}
    assert run(items, batch_size=100, num_workers=1) == result


def test_a_class_is_the_mean_of_its_templates():
    # Class "6" is 6 in one template of three and 0 in two: nearer to a picture of 0 than to one of 6.
    templates = ["0 or {}", "0 and {}", "{}"]
    assert run([item(0, label=1)], ["5", "6"], templates).metrics["zero_shot/top_1"] == 0  # a tie: both are two thirds 0
    assert run([item(6, label=1)], ["5", "6"], templates).metrics["zero_shot/top_1"] == 1


@pytest.mark.parametrize("label", [None, 8, -1, "cat"])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(DataError, match=r"Sample 'key1' has the label .*0 to 7.*`evaluators`"):
        run([item(0, label=0), item(1, label=label)])


def test_no_classes_no_templates_or_a_template_without_a_place_are_refused():
    for classes, templates in (([], ["a {}"]), (["0"], [])):
        with pytest.raises(DataError, match=r"classes\.json"):
            run([item(0, label=0)], classes, templates)
    with pytest.raises(DataError, match=r"'a photo' has no \{\}"):
        run([item(0, label=0)], ["0"], ["a photo"])


def test_the_confusion_is_an_example_and_agrees_with_the_metrics():
    items = [item(0, label=0), item(1, label=1), item(2, label=2), item(3, label=0), item(4, label=5)]
    (example,) = run(items).examples["zero_shot"]
    assert example["classes"] == CLASSES
    expected = torch.zeros(8, 8, dtype=torch.long)
    expected[[0, 1, 2, 0, 5], [0, 1, 2, 3, 4]] = 1
    assert example["confusion"] == expected.tolist()
    assert example["num_images"] == expected.sum(1).tolist()


def test_at_most_thirty_classes_are_shown_the_confused_ones_among_them():
    (example,) = run([item(31, label=3)], [str(n) for n in range(32)]).examples["zero_shot"]
    assert len(example["classes"]) == len(example["confusion"]) == len(example["confusion"][0]) == 30
    place = [example["classes"].index(name) for name in ("3", "31")]
    assert example["confusion"][place[0]][place[1]] == 1


def test_class_names_may_hold_braces():
    assert run([item(1, label=1)], ["0 {odd}", "1 {}"]).metrics["zero_shot/top_1"] == 1
