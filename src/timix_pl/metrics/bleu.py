"""BLEU: the share of a text's n-grams that its references contain too."""

import math
from collections import Counter
from collections.abc import Sequence

from timix_pl.metrics.ngrams import Ngram, Tokens, count_ngrams

_SMALL, _TINY = 1e-9, 1e-15
"""Constants that pycocoevalcap adds to denominators and numerators, to avoid division by zero."""


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_n: int = 4) -> list[float]:
    """BLEU-1 to BLEU-``max_n`` of the whole set, 0 to 1.

    The count of an n-gram is clipped to its largest count in one reference. Counts are summed over the set. So are lengths; of the
    references, the length closest to the hypothesis counts (the shorter of two). BLEU-n is the geometric mean of the precisions up to n,
    times the brevity penalty.

    Args:
        hypotheses: one per image; it may be empty.
        references: one or more per image.
    Source: Papineni et al. 2002. The constants and the values are those of pycocoevalcap, except 0 if no word is right.
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
