"""Noise and mutual information on two ranks: the figures of one, to the last bit, each image encoded on one rank."""

import torch

from tests.distributed.spawn import run_on_ranks
from tests.tiny import tiny_model
from tests.unit.evaluation.test_pairs import is_wrong, pairs
from timix_pl.evaluation.evaluator import run_tasks
from timix_pl.evaluation.evaluators.mutual_information import MutualInformation
from timix_pl.evaluation.evaluators.noise import Noise
from timix_pl.mixing.strategies.timix import TiMix


def evaluate():
    model = tiny_model()
    seen = []
    model.image.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    held_out, train = pairs(23, wrong=is_wrong), pairs(11, seed=1, wrong=is_wrong)
    evaluators = [
        MutualInformation(held_out, train, mixer=TiMix(model.patch_grid), num_pairs=5, batch_size=3),
        Noise(held_out, train, field="wrong", num_pairs=5, batch_size=3),
    ]
    return run_tasks(evaluators, model, torch.device("cpu")), sum(seen)


def test_two_ranks_give_the_figures_of_one_and_share_the_work():
    (first, seen_by_first), (second, seen_by_second) = run_on_ranks(evaluate, 2)
    alone, seen = evaluate()
    assert first == second == alone
    assert len(alone.metrics) == 8 + 2 * 5
    assert seen_by_first + seen_by_second == seen == 2 * (23 + 11) + 23 + 10  # for each task, and mixed, but for the one left over
    assert min(seen_by_first, seen_by_second) > seen / 3
