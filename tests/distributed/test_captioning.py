"""Captioning on two ranks: the captions and figures of one, with sizes that do not divide; and errors that reach both."""

from collections import Counter

import pytest
import torch
from torch import nn

from tests.distributed.spawn import run_on_ranks
from tests.tiny import WORDS, random_captions
from tests.unit.evaluation.fakes import Items, OracleModel, item
from timix_pl.core.errors import DataError
from timix_pl.evaluation.captioning import Captioning

CPU = torch.device("cpu")


class RandomWriter(OracleModel):
    """Words that depend on every pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(3 * 4 * 8, 6)
        self.images_seen = Counter()

    def caption(self, images):
        self.images_seen.update(images[:, 0, 0, 0].tolist())
        numbers = (self.image(images.flatten(1) / 255) * 1000).int().abs() % len(WORDS)
        return [" ".join(WORDS[number] for number in row) for row in numbers.tolist()]


def dataset(num_images, without_captions=None):
    items = []
    for number in range(num_images):
        noise = torch.randint(0, 256, (3, 4, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        noise[0, 0, 0] = number
        captions = random_captions(1 + number % 3, number) if number != without_captions else []
        items.append(item(number, captions)._replace(image=noise))
    return Items(items)


def evaluate(num_images):
    model = RandomWriter()
    metrics, chance, examples = Captioning(dataset(num_images), batch_size=4).run(model, CPU)
    return metrics, chance, [example | {"image": example["image"].tolist()} for example in examples["captioning"]], model.images_seen


def all_cases():
    try:
        Captioning(dataset(13, without_captions=12), batch_size=4).run(
            RandomWriter(), CPU
        )  # in the last batch, which the second rank reads
    except DataError as error:
        return evaluate(3), evaluate(43), str(error)
    raise AssertionError("the broken set was accepted")


@pytest.fixture(scope="module")
def on_two_ranks():
    """For each case of ``all_cases`` the pair of what the ranks returned."""
    return list(zip(*run_on_ranks(all_cases, 2), strict=True))


@pytest.mark.parametrize(("case", "num_images"), [(0, 3), (1, 43)])  # fewer batches than ranks; eleven batches, the last one ragged
def test_two_ranks_give_the_figures_of_one_and_share_the_work(on_two_ranks, case, num_images):
    (*first, seen_by_first), (*second, seen_by_second) = on_two_ranks[case]
    *alone, _ = evaluate(num_images)
    assert first == second == alone
    assert seen_by_first + seen_by_second == Counter(range(num_images))
    if num_images > 4:
        assert abs(seen_by_first.total() - seen_by_second.total()) <= 4


def test_an_error_on_one_rank_is_raised_on_both(on_two_ranks):
    first, second = on_two_ranks[2]
    assert first == second and "'key12' has no captions" in first
