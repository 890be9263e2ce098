"""Captioning metrics against pycocoevalcap, and the baseline against every reference tried in turn."""

from collections import Counter

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from timix_pl.metrics.bleu import bleu
from timix_pl.metrics.caption_tokens import caption_tokens
from timix_pl.metrics.captioning import captioning_chance, captioning_metrics
from timix_pl.metrics.cider import cider_d, consensus_caption
from timix_pl.metrics.rouge import rouge_l

CAPTIONS = [
    ("A black dog runs across the grass.", ["A dog runs on the grass.", "The black dog is running outside.", "A dog plays on a lawn"]),
    ("a man a man a man", ["A man rides a bike.", "A man in a helmet is on a bicycle near a river that's quite wide."]),
    ("Two children play in the water", ["Two children play in the water"]),
    ("", ["A boy jumps", "A boy's jump into a pool is photographed"]),
    ("dog", ["A cat", "dog"]),
    ("A girl in a red dress walks along the beach with her brown dog", ["A girl walks her dog", "dress"]),
]


def random_captions(seed):
    """Few words, so that n-grams repeat; one to six references; some hypotheses are empty, some are a reference."""
    draw = np.random.default_rng(seed)

    def caption(shortest):
        return [f"w{number}" for number in draw.zipf(1.5, draw.integers(shortest, 18)) % 30]

    references = [[caption(1) for _ in range(draw.integers(1, 7))] for _ in range(60)]
    hypotheses = [own[0] if draw.random() < 0.2 else caption(0) for own in references]
    hypotheses[7] = []
    return hypotheses, references


REAL_LOOKING = [caption_tokens(said) for said, _ in CAPTIONS], [[caption_tokens(one) for one in meant] for _, meant in CAPTIONS]


def theirs(scorer, hypotheses, references, **options):
    said = {number: [" ".join(words)] for number, words in enumerate(hypotheses)}
    meant = {number: [" ".join(words) for words in own] for number, own in enumerate(references)}
    return scorer.compute_score(meant, said, **options)


@pytest.mark.parametrize(("hypotheses", "references"), [REAL_LOOKING, *map(random_captions, range(4))])
def test_equals_pycocoevalcap(hypotheses, references):
    assert bleu(hypotheses, references) == pytest.approx(theirs(Bleu(4), hypotheses, references, verbose=0)[0])
    assert list(map(rouge_l, hypotheses, references)) == pytest.approx(theirs(Rouge(), hypotheses, references)[1])
    mean, of_each = theirs(Cider(), hypotheses, references)
    assert cider_d(hypotheses, references) == pytest.approx(of_each)
    assert captioning_metrics(hypotheses, references)[0]["cider_d"] == pytest.approx(mean)
    assert mean > 0.1


def test_one_image_alone_has_no_rare_words():
    assert cider_d([["a", "dog"]], [[["a", "dog"]]]) == [0.0]


def test_not_one_right_word():
    metrics, _ = captioning_metrics([["x"], ["y", "z"]], [[["a"]], [["a", "dog"], ["b"]]])
    assert metrics == dict.fromkeys(metrics, 0)


def test_nothing_said_of_anything():
    metrics, _ = captioning_metrics([[], []], [[["a"]], [["a", "dog"], ["b"]]])
    assert metrics == dict.fromkeys(metrics, 0)


def cosine_cider(said, references):
    """CIDEr as the paper's equation 3 has it, with words and vectors spelled out."""
    means = []
    for n in range(1, 5):
        grams = [[Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in own] for own in references]
        names = sorted({gram for own in grams for one in own for gram in one})
        rarity = [np.log(len(references) / sum(any(gram in one for one in own) for own in grams)) for gram in names]
        vector = lambda counts: np.array([counts[gram] for gram in names]) * rarity  # noqa: B023, E731
        guess = vector(Counter(zip(*(said[i:] for i in range(n)), strict=False)))
        similarity = lambda one: guess @ vector(one) / (np.linalg.norm(guess) * np.linalg.norm(vector(one)) or 1)  # noqa: B023, E731
        means.append(np.mean([np.mean([similarity(one) for one in own]) for own in grams]))
    return np.mean(means)


@pytest.mark.parametrize("seed", range(3))
def test_the_consensus_caption_is_the_best_one_caption_for_all(seed):
    references = random_captions(seed)[1][:20]
    of_each = {tuple(words): cosine_cider(words, references) for own in references for words in own}
    assert tuple(consensus_caption(references)) == max(of_each, key=of_each.get)
    assert captioning_chance(references) == captioning_metrics([consensus_caption(references)] * 20, references)[0]
