import pytest
import torch
from torch import nn

from tests.unit.evaluation.fakes import Items
from timix_pl.core.errors import DataError
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluators.carry_over import CarryOver

CPU = torch.device("cpu")
GRID, PATCH_PX = 4, 2


class SpotModel(nn.Module):
    """An image shows one white patch, a caption is a patch's number. Similarity is the brightness there; so is the score, times trust."""

    def __init__(self, trust=1.0):
        super().__init__()
        self.trust = trust
        self.image_batches = []

    def tokenizer(self, texts):
        return torch.tensor([[int(text)] for text in texts])

    def encode_image(self, images):
        self.image_batches.append(images)
        return nn.functional.avg_pool2d(images[:, :1].float() / 255, PATCH_PX).flatten(1)

    def encode_text(self, tokens):
        return torch.eye(GRID * GRID)[tokens[:, 0]]

    def patch_scores(self, images, tokens):
        scores = self.encode_image(images) * self.encode_text(tokens)
        self.image_batches.pop()
        return self.trust * scores.unflatten(1, (GRID, GRID))


def spot(number, key, caption=None):
    image = torch.zeros(3, GRID * PATCH_PX, GRID * PATCH_PX, dtype=torch.uint8)
    row, column = PATCH_PX * (number // GRID), PATCH_PX * (number % GRID)
    image[:, row : row + PATCH_PX, column : column + PATCH_PX] = 255
    return EvaluationItem(key, image, (str(number) if caption is None else caption, "99 is not used"), (), {})


ITEMS = [spot((5 * n + 3) % 16, f"key{n}") for n in range(11)]


def run(items=ITEMS, model=None, **options):
    return CarryOver(Items(items), **{"batch_size": 4, **options}).run(model or SpotModel(), CPU)


def test_scores_that_point_at_what_matters_win_both_tests():
    result = run()
    assert result.metrics["carry_over/best_over_least"] == result.metrics["carry_over/roc_auc"] == 1
    mean_colour = round(255 / 16) / 255
    assert result.metrics["carry_over/drop_best"] == pytest.approx(1 - mean_colour)  # the spot is blanked
    assert result.metrics["carry_over/drop_least"] == 0
    assert 0 < result.chance["carry_over/drop_best"] == result.chance["carry_over/drop_least"] < 0.9 * (1 - mean_colour)
    assert result.chance["carry_over/best_over_least"] == result.chance["carry_over/roc_auc"] == 0.5


def test_scores_upside_down_lose_both():
    result = run(model=SpotModel(trust=-1.0))
    assert result.metrics["carry_over/best_over_least"] == result.metrics["carry_over/roc_auc"] == 0


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 100}, {"num_workers": 1}])
def test_batches_and_workers_change_nothing(options):
    assert run(**options) == run()


@pytest.mark.parametrize(("max_side", "side"), [(0.5, 1), (0.75, 2), (1.0, 2)])  # TiMix draws 1 to 2, 1 to 3, 1 to 4
def test_windows_have_the_middle_of_the_sides_that_timix_draws_and_lie_in_the_image(max_side, side):
    model = SpotModel()
    run(model=model, max_side=max_side)
    clean, *blanked = model.image_batches[:4]
    for images in blanked:
        is_grey = (images[:, 0] == round(255 / 16)).flatten(1).sum(dim=1)
        assert is_grey.tolist() == [(side * PATCH_PX) ** 2] * len(clean)
        assert ((images == clean) | (images == round(255 / 16))).all()


def test_the_other_caption_is_the_next_one_that_differs():
    """Images 0, 1 and 3 say the same: an own caption would score as high as it."""
    items = [spot(n, f"k{n}", caption) for n, caption in ((7, "7"), (7, "7"), (2, "2"), (7, "7"))]
    assert run(items).metrics["carry_over/roc_auc"] == 1


def test_images_without_captions_or_all_with_the_same_are_refused():
    with pytest.raises(DataError, match=r"'key1' has no captions, and carry_over needs at least one"):
        run([ITEMS[0], ITEMS[1]._replace(captions=())])
    with pytest.raises(DataError, match=r"All 2 images have the same first caption"):
        run([ITEMS[0], ITEMS[0]])
