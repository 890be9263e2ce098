"""ROUGE-L: the longest common subsequence of a text and its reference."""

from collections.abc import Sequence

from timix_pl.metrics.ngrams import Tokens


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens], beta: float = 1.2) -> float:
    """F-measure of the longest common subsequence, 0 to 1; precision and recall are each those of the best reference.

    Args:
        hypothesis: it may be empty; then the score is 0.
        references: one or more.
        beta: weight of recall relative to precision.
    Source: Lin 2004, with the beta and the maxima of pycocoevalcap; the values equal those of pycocoevalcap.
    """
    common = [_longest_common_subsequence(hypothesis, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(length / max(len(reference), 1) for length, reference in zip(common, references, strict=True))
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _longest_common_subsequence(first: Tokens, second: Tokens) -> int:
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other else max(above, lengths[j - 1])
            diagonal = above
    return lengths[-1]
