import math

import pytest
import torch

from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.core.errors import DataError, ModelError
from timix_pl.evaluation.evaluators.grounding import Grounding

CPU = torch.device("cpu")

# A grid of 2 by 4 patches, numbered row by row. The phrases light patches 0, 1, 3 and 4.
PATCH_0 = (0.0, 0.0, 0.25, 0.5)
PATCHES_0_AND_1 = (0.0, 0.0, 0.5, 0.5)
RIGHT_HALF = (0.5, 0.0, 1.0, 1.0)
DATASET = Items(
    [
        item(0, regions=[("patch 0", PATCH_0), ("patch 1", PATCHES_0_AND_1), ("patch 3", RIGHT_HALF)]),
        item(1),
        item(2, regions=[("patch 2", RIGHT_HALF)]),
    ]
)


def run(dataset=DATASET, **options):
    return Grounding(dataset, **{"batch_size": 2, **options}).run(OracleModel(), CPU)


def test_figures_counted_by_hand():
    result = run()
    assert result.metrics["grounding/pointing"] == 3 / 4
    assert result.metrics["grounding/localisation"] == 2 / 4  # one patch has IoU 1, 1/2, 1/4 with its box, and the last misses it
    assert result.metrics["grounding/patch_precision"] == 3 / 4
    assert result.metrics["grounding/patch_recall"] == pytest.approx(3 / 11)
    assert result.chance["grounding/pointing"] == pytest.approx((1 + 2 + 4 + 4) / 8 / 4)
    assert result.chance["grounding/patch_precision"] == result.chance["grounding/patch_ap"] == pytest.approx(11 / 32)
    assert result.chance["grounding/patch_recall"] == pytest.approx(4 / 32)
    assert result.metrics["grounding/pointing_centre"] == 3 / 4  # the corners of three boxes lie in the middle of the image
    confident = 1 / (1 + math.exp(4))  # the model is so sure of each patch; 1 + 8 of the 32 are wrong
    assert result.metrics["grounding/patch_brier_score"] == pytest.approx((23 * confident**2 + 9 * (1 - confident) ** 2) / 32)
    surplus_above, surplus_below = 4 * (1 - confident) - 3, 28 * confident - 8
    assert result.metrics["grounding/patch_calibration_error"] == pytest.approx((surplus_above - surplus_below) / 32)
    assert result.chance["grounding/patch_brier_score"] == pytest.approx(11 / 32 * 21 / 32)
    assert result.chance.keys() == result.metrics.keys() - {"grounding/patch_calibration_error"}


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 100}, {"num_workers": 1}])
def test_batches_and_workers_change_nothing(options):
    assert run(**options) == run()


def test_a_phrase_with_several_boxes_is_scored_once_and_each_box_is_right():
    dataset = Items([item(0, regions=[("patch 7", PATCH_0), ("patch 7", RIGHT_HALF), ("patch 3", RIGHT_HALF)])])
    model = OracleModel()
    result = Grounding(dataset, batch_size=8).run(model, CPU)
    assert model.texts_seen == ["patch 7", "patch 3"]
    assert result.metrics["grounding/pointing"] == 1
    assert result.metrics["grounding/patch_recall"] == pytest.approx(2 / (5 + 4))
    assert result.chance["grounding/pointing"] == pytest.approx((5 + 4) / 8 / 2)


def test_min_cover_decides_which_patches_a_box_makes_positive():
    dataset = Items([item(0, regions=[("patch 0", (0.0, 0.0, 0.3, 0.5))])])  # touches a fifth of patch 1
    assert run(dataset).metrics["grounding/patch_recall"] == 1 / 2
    assert run(dataset, min_cover=0.5).metrics["grounding/patch_recall"] == 1


def test_phrases_go_through_the_template():
    model = OracleModel()
    Grounding(DATASET, batch_size=9, phrase_template="a photo of {}").run(model, CPU)
    assert model.texts_seen[0] == "a photo of patch 0"


def test_images_without_boxes_are_refused():
    with pytest.raises(DataError, match=r"None of the evaluation images has regions.*`dataset`"):
        run(Items([item(0), item(1)]))


def test_a_model_without_the_head_says_so():
    class WithoutHead(OracleModel):
        def patch_scores(self, images, tokens):
            raise ModelError("built without the PTA head")

    with pytest.raises(ModelError, match="PTA head"):
        Grounding(DATASET, batch_size=2).run(WithoutHead(), CPU)
