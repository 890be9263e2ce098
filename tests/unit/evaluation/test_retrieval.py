import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.core.errors import DataError
from timix_pl.evaluation.evaluators.retrieval import Retrieval

CPU = torch.device("cpu")

# Seven images, eleven captions; one caption of image 2 says 5, the only one of image 6 says 30, which is nothing that can be seen.
DATASET = Items(
    [
        item(0, ["a 0"]),
        item(1, ["a 1", "the 1", "some 1"]),
        item(2, ["a 2", "a 5 on a table"]),
        item(3, ["a 3"]),
        item(4, ["a 4"]),
        item(5, ["a 5", "the 5"]),
        item(6, ["a 30"]),
    ]
)


def run(**options):
    return Retrieval(DATASET, **{"batch_size": 4, **options}).run(OracleModel(), CPU)


def test_figures_counted_by_hand():
    metrics = run().metrics
    # Nine of the eleven captions lead to their image; "a 5 on a table" leads to image 5, and "a 30" nowhere: both tie with all, rank 7.
    assert metrics["retrieval/text_to_image/recall_at_1"] == pytest.approx(9 / 11)
    assert metrics["retrieval/text_to_image/recall_at_5"] == pytest.approx(9 / 11)
    assert metrics["retrieval/text_to_image/recall_at_10"] == 1
    assert metrics["retrieval/text_to_image/median_rank"] == 1
    # Image 5 ties with image 2's "a 5 on a table" (rank 2, against the model); image 6 finds nothing (rank 11).
    assert metrics["retrieval/image_to_text/recall_at_1"] == pytest.approx(5 / 7)
    assert metrics["retrieval/image_to_text/recall_at_5"] == pytest.approx(6 / 7)
    assert metrics["retrieval/image_to_text/recall_at_10"] == pytest.approx(6 / 7)
    assert metrics["retrieval/mean_recall"] == pytest.approx((9 / 11 + 9 / 11 + 1 + 5 / 7 + 6 / 7 + 6 / 7) / 6)


def test_chance_has_the_metrics_names():
    result = run()
    assert result.chance.keys() == result.metrics.keys()
    assert result.chance["retrieval/text_to_image/recall_at_1"] == pytest.approx(1 / 7)
    assert result.chance["retrieval/image_to_text/recall_at_1"] == pytest.approx(11 / 11 / 7)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 100}, {"batch_size": 3, "num_workers": 2}])
def test_batches_and_workers_change_nothing(options):
    assert run(**options) == run()


def test_its_choice_begins_every_metric():
    evaluator = Retrieval(DATASET, batch_size=4)
    evaluator.choice = "coco"
    assert all(name.startswith("coco/") for name in evaluator.run(OracleModel(), CPU).metrics)


def test_each_distinct_caption_is_encoded_once():
    model = OracleModel()
    Retrieval(Items([item(0, ["a 0", "a 0"]), item(1, ["a 1", "a 0"])]), batch_size=2).run(model, CPU)
    assert sorted(model.texts_seen) == ["a 0", "a 1"]


def test_an_image_without_captions_is_named():
    dataset = Items([item(0, ["a 0"]), item(1)])
    for num_workers in (0, 1):
        with pytest.raises(DataError, match=r"^Sample 'key1' has no captions.*`evaluators`"):
            Retrieval(dataset, batch_size=2, num_workers=num_workers).run(OracleModel(), CPU)


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="no samples"):
        Retrieval(Items([]), batch_size=2).run(OracleModel(), CPU)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_sample_gives_its_own_message(num_workers):
    with pytest.raises(DataError, match=r"^sample 1 is broken$"):
        Retrieval(Items([item(0, ["a 0"]), None]), batch_size=2, num_workers=num_workers).run(OracleModel(), CPU)


FIVE_TO_SEVEN = Items([item(n, [f"a {n}"] * (5 + n % 3)) for n in range(10)])


def test_the_first_captions_are_taken_and_too_few_are_named():
    result = Retrieval(FIVE_TO_SEVEN, batch_size=4, captions_per_image=5).run(OracleModel(), CPU)
    assert result.chance["retrieval/image_to_text/mean_rank"] == pytest.approx(51 / 6)  # fifty captions, five of each image
    with pytest.raises(DataError, match=r"'key0' has 5 captions, fewer than `captions_per_image=6`"):
        Retrieval(FIVE_TO_SEVEN, batch_size=4, captions_per_image=6).run(OracleModel(), CPU)


def test_folds_are_sets_of_their_own_and_their_figures_are_averaged():
    """Twins lie in different folds, so that each fold is free of ties."""
    twins = [item(n % 4, [f"a {n % 4}"] * (1 + n % 2)) for n in range(8)]
    assert Retrieval(Items(twins), batch_size=3).run(OracleModel(), CPU).metrics["retrieval/mean_recall"] < 1
    folds = Retrieval(Items(twins), batch_size=3, num_folds=2).run(OracleModel(), CPU)
    assert folds.metrics["retrieval/mean_recall"] == folds.metrics["retrieval/image_to_text/map_at_10"] == 1
    apart = [Retrieval(Items(half), batch_size=3).run(OracleModel(), CPU) for half in (twins[:4], twins[4:])]
    for name, value in folds.chance.items():
        assert value == pytest.approx((apart[0].chance[name] + apart[1].chance[name]) / 2)


def test_folds_must_divide_the_set():
    with pytest.raises(DataError, match=r"`num_folds=3` does not divide the 10 images"):
        Retrieval(FIVE_TO_SEVEN, batch_size=4, num_folds=3).run(OracleModel(), CPU)
