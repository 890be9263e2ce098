"""BLEU: how many of a text's runs of words its references have too."""

import math
from collections import Counter
from collections.abc import Sequence

from timix_pl.metrics.ngrams import Ngram, Tokens, count_ngrams

_SMALL, _TINY = 1e-9, 1e-15
"""What pycocoevalcap adds to denominators and numerators, so that nothing is divided by zero."""


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_n: int = 4) -> list[float]:
    """BLEU-1 to BLEU-``max_n`` of the whole set, 0 to 1.

    Counts of n-grams, clipped to those of the reference that has most, are summed over the set; so are lengths, of the references the one
    closest to the hypothesis (the shorter of two). BLEU-n is the geometric mean of the precisions to n, times the brevity penalty.

    Args:
        hypotheses: one per image, maybe empty; ``references``: one or more each.
    Source: Papineni et al. 2002; the constants are those of pycocoevalcap, whose values it gives (and 0 where no word is right).
    """
    num_right, num_said = [0] * max_n, [0] * max_n
    hypothesis_length = reference_length = 0
    for hypothesis, own_references in zip(hypotheses, references, strict=True):
        allowed: Counter[Ngram] = Counter()
        for reference in own_references:
            allowed |= count_ngrams(reference, max_n)
        for ngram, count in (count_ngrams(hypothesis, max_n) & allowed).items():
            num_right[len(ngram) - 1] += count
        for n in range(max_n):
            num_said[n] += max(len(hypothesis) - n, 0)
        hypothesis_length += len(hypothesis)
        reference_length += min((abs(len(reference) - len(hypothesis)), len(reference)) for reference in own_references)[1]
    if not num_right[0]:
        return [0.0] * max_n
    precisions = [(right + _TINY) / (said + _SMALL) for right, said in zip(num_right, num_said, strict=True)]
    ratio = (hypothesis_length + _TINY) / (reference_length + _SMALL)
    brevity_penalty = math.exp(min(1 - 1 / ratio, 0.0))
    return [brevity_penalty * math.prod(precisions[:n]) ** (1 / n) for n in range(1, max_n + 1)]
