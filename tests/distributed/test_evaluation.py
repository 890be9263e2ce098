"""Evaluation on two ranks: the same figures as on one, to the last bit, with sizes that do not divide; and errors that reach all ranks."""

from collections import Counter

import pytest
import torch
from torch import nn

from tests.distributed.spawn import run_on_ranks
from tests.unit.evaluation.fakes import Items, item
from timix_pl.evaluation.evaluator import EvaluationError, run_tasks
from timix_pl.evaluation.evaluators.carry_over import CarryOver
from timix_pl.evaluation.evaluators.grounding import Grounding
from timix_pl.evaluation.evaluators.knn import Knn
from timix_pl.evaluation.evaluators.linear_probe import LinearProbe
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.evaluation.evaluators.zero_shot import ZeroShot

CPU = torch.device("cpu")
CLASSES = [f"class {n}" for n in range(6)]


class RandomModel(nn.Module):
    """Untrained towers whose features depend on every pixel and token, so that figures move with the smallest mistake."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 8, 64), nn.GELU(), nn.Linear(64, 16))
        self.text = nn.Sequential(nn.Embedding(128, 64), nn.Flatten(), nn.Linear(20 * 64, 16))
        self.patches = nn.Linear(16, 8)
        self.images_seen = Counter()

    def tokenizer(self, texts):
        return torch.tensor([list(text.ljust(20)[:20].encode()) for text in texts])

    def encode_image(self, images):
        self.images_seen.update(images[:, 0, 0, 0].tolist())
        return nn.functional.normalize(self.image(images / 255), dim=1)

    def encode_text(self, tokens):
        return nn.functional.normalize(self.text(tokens), dim=1)

    def patch_scores(self, images, tokens):
        return self.patches(self.image(images / 255) * self.text(tokens)).unflatten(1, (2, 4))


def dataset(num_images):
    draw = torch.Generator().manual_seed(num_images)
    items = []
    for n in range(num_images):
        captions = [f"caption {n} {c}" for c in range(1 + n % 3)]
        regions = [(f"phrase {n} {r}", (0.1 * r, 0.2, 0.1 * r + 0.4, 0.9)) for r in range(n % 4)]
        noise = torch.randint(0, 256, (3, 4, 8), dtype=torch.uint8, generator=draw)
        noise[0, 0, 0] = n
        items.append(item(n, captions, regions, label=n % 6)._replace(image=noise))
    return items


def evaluate(items):
    model = RandomModel()
    evaluators = [
        Retrieval(Items(items), batch_size=4),
        ZeroShot(Items(items), CLASSES, ["a {}", "the {}", "{}"], batch_size=4),
        Grounding(Items(items), batch_size=4, min_cover=0.5),
    ]
    return without_pictures(run_tasks(evaluators, model, CPU)), model.images_seen


def without_pictures(result):
    """The result with the number that fills each picture's corner in place of the picture, so that results can be compared."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return f"picture {value[0, 0, 0]}"
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list) else value

    return result._replace(examples=plain(dict(result.examples)))


def evaluate_more(items):
    """Retrieval in folds and without some captions, and the tasks that look at images more than once."""
    model, half = RandomModel(), len(items) // 2
    evaluators = [
        Retrieval(Items(items[: half // 3 * 3]), batch_size=4, captions_per_image=1, num_folds=3),
        CarryOver(Items(items), batch_size=4),
        LinearProbe(Items(items[:half]), Items(items[half:]), batch_size=4),
        Knn(Items(items[:half]), Items(items[half:]), batch_size=4),
    ]
    return without_pictures(run_tasks(evaluators, model, CPU)), model.images_seen


def broken_dataset():
    items = dataset(13)
    items[12] = items[12]._replace(captions=())  # in the last batch, which the second rank reads
    return items


def all_cases():
    try:
        evaluate(broken_dataset())
    except EvaluationError as error:
        return evaluate(dataset(3)), evaluate(dataset(43)), (error.problems, without_pictures(error.result)), evaluate_more(dataset(43))
    raise AssertionError("the broken set was accepted")


@pytest.fixture(scope="module")
def on_two_ranks():
    """For each case of ``all_cases`` the pair of what the ranks returned."""
    return list(zip(*run_on_ranks(all_cases, 2), strict=True))


@pytest.mark.parametrize(("case", "num_images"), [(0, 3), (1, 43)])  # fewer batches than ranks; eleven batches, the last one ragged
def test_two_ranks_give_the_figures_of_one_and_share_the_work(on_two_ranks, case, num_images):
    (first, seen_by_first), (second, seen_by_second) = on_two_ranks[case]
    alone, _ = evaluate(dataset(num_images))
    assert first == second == alone
    assert len(alone.examples["retrieval"]) == min(8, num_images) + min(8, len([c for one in dataset(num_images) for c in one.captions]))
    assert len(alone.metrics) == len(alone.chance) + 1 == 13 + 3 + 8  # a calibration error has no chance level
    assert seen_by_first + seen_by_second == Counter({n: 2 for n in range(num_images)})  # once for retrieval, once for zero-shot
    if num_images > 4:
        assert abs(seen_by_first.total() - seen_by_second.total()) <= 2 * 4


def test_an_error_on_one_rank_is_raised_on_both_and_the_other_evaluations_run(on_two_ranks):
    (problems, result), (problems_of_second, result_of_second) = on_two_ranks[2]
    assert problems == problems_of_second and result == result_of_second
    assert list(problems) == ["retrieval"] and "'key12' has no captions" in problems["retrieval"]
    assert len(result.metrics) == 3 + 8


def test_tasks_that_look_at_images_more_than_once_too(on_two_ranks):
    (first, seen_by_first), (second, seen_by_second) = on_two_ranks[3]
    alone, seen_alone = evaluate_more(dataset(43))
    assert first == second == alone
    assert len(alone.metrics) == 13 + 4 + 3 + 3
    assert seen_by_first + seen_by_second == seen_alone and min(seen_by_first.total(), seen_by_second.total()) > 0.4 * seen_alone.total()
