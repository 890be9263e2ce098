"""Compare generated captions with any number of references per image."""

from collections.abc import Sequence
from statistics import fmean

from timix_pl.metrics.bleu import bleu
from timix_pl.metrics.cider import cider_d, consensus_caption
from timix_pl.metrics.ngrams import Tokens
from timix_pl.metrics.rouge import rouge_l


def captioning_metrics(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[dict[str, float], list[float]]:
    """BLEU-1 to 4 and ROUGE-L (0 to 1) and CIDEr-D (0 to 10) of the set, and the CIDEr-D of each hypothesis.

    Args:
        hypotheses: one per image; it may be empty.
        references: one or more per image.
    """
    cider_d_of_each = cider_d(hypotheses, references)
    metrics = {f"bleu_{n}": value for n, value in enumerate(bleu(hypotheses, references), 1)}
    metrics["rouge_l"] = fmean(map(rouge_l, hypotheses, references))
    metrics["cider_d"] = fmean(cider_d_of_each)
    return metrics, cider_d_of_each


def captioning_chance(references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """The metrics if every image gets the same caption, that of ``consensus_caption``; names as in ``captioning_metrics``."""
    return captioning_metrics([consensus_caption(references)] * len(references), references)[0]
