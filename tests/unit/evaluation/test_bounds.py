"""InfoNCE's bounds on small tables of known mutual information: no critic's estimate lies above it, and the best one's comes close."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import GRID
from tests.unit.evaluation.fakes import Items
from timix_pl.core.types import MixPlan
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluators.mutual_information import MutualInformation
from timix_pl.mixing.strategies.mixup import Mixup

NUM_SYMBOLS = 12


class Critic(nn.Module):
    """Images and captions are symbols; the score of each pair, and of each mixed image and caption, is read from a table, as lam is."""

    def __init__(self, clean, mixed, lam):
        super().__init__()
        self.clean, self.mixed, self.lam = (torch.tensor(table, dtype=torch.float32) for table in (clean, mixed, lam))

    def tokenizer(self, texts):
        return torch.tensor([int(text) for text in texts])

    def forward(self, images, tokens, mix):
        symbols = images[:, 0, 0, 0].long()
        own, partner = symbols[mix.rows], symbols[mix.chosen.partners]
        return SimpleNamespace(
            image_features=self.clean[symbols],
            text_features=nn.functional.one_hot(tokens, NUM_SYMBOLS).float(),
            logit_scale=1.0,
            mixed_image_features=self.mixed[own, partner],
            plan=MixPlan(mix.rows, mix.chosen.partners, self.lam[own, partner], None),
        )


def related(noise):
    """p(y | x), where y is x, or with a probability any symbol."""
    return (1 - noise) * np.eye(NUM_SYMBOLS) + noise / NUM_SYMBOLS


def pairs(captions_of, seed, num):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, NUM_SYMBOLS, num)
    captions = [draw.choice(NUM_SYMBOLS, p=captions_of[x]) for x in images]
    return Items(
        [
            EvaluationItem(f"{seed}/{n}", torch.full((3, 1, 1), x, dtype=torch.uint8), (str(y),), (), {})
            for n, (x, y) in enumerate(zip(images, captions, strict=True))
        ]
    )


def estimates(captions_of, num_pairs, clean, mixed, lam):
    """Mean and standard error of the clean and the mixed bound over independent sets."""
    model, found = Critic(clean, mixed, lam), []
    for seed in range(12):
        task = MutualInformation(
            pairs(captions_of, seed, min(60 * num_pairs, 960)), None, mixer=Mixup(GRID), num_pairs=num_pairs, batch_size=64
        )
        metrics = task.run(model, torch.device("cpu")).metrics
        found.append([metrics["mutual_information/held_out"], metrics["mutual_information/held_out_mixed"]])
    found = np.array(found)
    return list(zip(found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found)), strict=True))


def divergence(given, marginal):
    """Of rows of p(y | .) from a marginal, in nats."""
    return (given * np.log(given / marginal)).sum(-1)


def critic(kind, given, marginal):
    return np.log(given / marginal) if kind == "best" else np.random.default_rng(0).normal(size=given.shape)


AREA = np.full((NUM_SYMBOLS, NUM_SYMBOLS), 0.75)
RELEVANCE = np.random.default_rng(1).uniform(0.2, 0.9, (NUM_SYMBOLS, NUM_SYMBOLS))  # lam depends on the pair


@pytest.mark.parametrize("kind", ["best", "random"])
@pytest.mark.parametrize(("noise", "num_pairs"), [(0.4, 3), (0.4, 64), (0.02, 8)])
@pytest.mark.parametrize("lam", [AREA, RELEVANCE], ids=["area", "relevance"])
def test_no_estimate_lies_above_what_is_known(kind, noise, num_pairs, lam):
    """Mixed: of the image, both symbols are seen. With lam by relevance the divergence is I(M; Y) + KL(q, p)."""
    captions_of, marginal = related(noise), np.full(NUM_SYMBOLS, 1 / NUM_SYMBOLS)
    of_mixed = lam[:, :, None] * captions_of[:, None] + (1 - lam[:, :, None]) * captions_of[None]
    (clean, clean_error), (mixed, mixed_error) = estimates(
        captions_of, num_pairs, critic(kind, captions_of, marginal), critic(kind, of_mixed, marginal), lam
    )
    known, known_mixed = divergence(captions_of, marginal).mean(), divergence(of_mixed, marginal).mean()
    assert known_mixed < known  # what mixes without the captions adds nothing
    assert clean < min(known, math.log(num_pairs)) + 3 * clean_error
    assert mixed < min(known_mixed, math.log(num_pairs - 1)) + 3 * mixed_error
    if kind == "best" and num_pairs == 64:
        assert clean > known - 0.1 and mixed > known_mixed - 0.15


def test_the_caption_of_the_other_part_is_no_candidate():
    """A mixed image that shows its partner alone says which caption of two is the wrong one, and next to nothing of the right one."""
    captions_of, lam, shown = np.eye(NUM_SYMBOLS), 0.98, np.eye(NUM_SYMBOLS)[None].repeat(NUM_SYMBOLS, axis=0)
    of_mixed = lam / NUM_SYMBOLS + (1 - lam) * shown
    known = divergence(of_mixed, 1 / NUM_SYMBOLS).mean()
    _, (mixed, error) = estimates(captions_of, 2, captions_of, -np.log(lam / (1 - lam)) * shown, np.full_like(AREA, lam))
    assert mixed < known + 3 * error
    assert mixed + math.log(2) > known + 0.4  # log K in place of log (K - 1)
