"""CIDEr: how similar a caption is to its references in the n-grams that are rare in the captions of other images."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from timix_pl.metrics.ngrams import Ngram, Tokens, count_ngrams


class _Weighted(NamedTuple):
    """A caption's n-grams weighted by tf-idf: for each n, the weights and their norm."""

    weights: list[dict[Ngram, float]]
    norms: list[float]


class _TfIdf:
    """Weights of n-grams: count times log(number of images / number of images with the n-gram in a reference)."""

    def __init__(self, references: Sequence[Sequence[Tokens]], max_n: int):
        self._max_n = max_n
        num_images_with: Counter[Ngram] = Counter()
        for own_references in references:
            num_images_with.update(set(chain.from_iterable(count_ngrams(reference, max_n) for reference in own_references)))
        self._rarest = math.log(len(references))
        self._rarity = {ngram: self._rarest - math.log(num_images) for ngram, num_images in num_images_with.items()}

    def __call__(self, tokens: Tokens) -> _Weighted:
        weights: list[dict[Ngram, float]] = [{} for _ in range(self._max_n)]
        for ngram, count in count_ngrams(tokens, self._max_n).items():
            weights[len(ngram) - 1][ngram] = count * self._rarity.get(ngram, self._rarest)
        return _Weighted(weights, [math.sqrt(sum(weight * weight for weight in of_one_n.values())) for of_one_n in weights])


def cider_d(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_n: int = 4, sigma: float = 6.0) -> list[float]:
    """CIDEr-D of each hypothesis, 0 to 10, as computed by pycocoevalcap's ``Cider``. Papers call it CIDEr and report it times 100.

    It is the cosine of tf-idf vectors of n-grams, averaged over n and over the references. Document frequencies come from the references of
    the given images, so values of different sets cannot be compared, and a set of one image gives 0. CIDEr-D differs from CIDEr in two
    ways: a weight is clipped to the reference's, and a difference in length is penalised. As in pycocoevalcap, words are not stemmed.

    Args:
        hypotheses: one per image; it may be empty.
        references: one or more per image.
        max_n: length of the longest n-grams.
        sigma: the difference in length, in words, that multiplies the cosine by exp(-1/2).
    Source: Vedantam, Zitnick and Parikh 2015, "CIDEr", section 4 and appendix A.
    """
    weigh = _TfIdf(references, max_n)

    def similarity(hypothesis: Tokens, reference: Tokens, said: _Weighted, meant: _Weighted) -> float:
        cosines = [
            sum(min(weight, own[ngram]) * own[ngram] for ngram, weight in weights.items() if ngram in own) / (norm * own_norm or 1.0)
            for weights, own, norm, own_norm in zip(said.weights, meant.weights, said.norms, meant.norms, strict=True)
        ]
        difference = max(len(hypothesis), 1) - max(len(reference), 1)  # numbers of bigrams, as in pycocoevalcap
        return sum(cosines) / max_n * math.exp(-(difference**2) / (2 * sigma**2))

    scores = []
    for hypothesis, own_references in zip(hypotheses, references, strict=True):
        said = weigh(hypothesis)
        similarities = [similarity(hypothesis, reference, said, weigh(reference)) for reference in own_references]
        scores.append(10 * sum(similarities) / len(similarities))
    return scores


def consensus_caption(references: Sequence[Sequence[Tokens]], max_n: int = 4) -> Tokens:
    """The reference that has the highest mean CIDEr if it is the caption of every image; the first of equal ones.

    Uses CIDEr of the paper's equation 3, without the changes of CIDEr-D. It is linear, so the mean is the product with one mean vector.

    Args:
        references: one or more per image.
    """
    weigh = _TfIdf(references, max_n)
    mean: defaultdict[Ngram, float] = defaultdict(float)

    def unit(tokens: Tokens) -> list[tuple[Ngram, float]]:
        weights, norms = weigh(tokens)
        return [(ngram, weight / norm) for of_one_n, norm in zip(weights, norms, strict=True) if norm for ngram, weight in of_one_n.items()]

    for own_references in references:
        for reference in own_references:
            for ngram, weight in unit(reference):
                mean[ngram] += weight / len(own_references)
    return max(chain.from_iterable(references), key=lambda reference: sum(weight * mean[ngram] for ngram, weight in unit(reference)))
