"""Image-text retrieval with any number of captions per image."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from statistics import fmean

from jaxtyping import Int
from torch import Tensor

from timix_pl.metrics.ranking import top_k_share

RECALL_AT = (1, 5, 10)


def retrieval_metrics(image_to_text_ranks: Int[Tensor, " N"], text_to_image_ranks: Int[Tensor, " M"]) -> dict[str, float]:
    """Recall at 1, 5 and 10 (0 to 1) and median rank (from 1) in both directions, and the mean of the six recalls.

    Args:
        image_to_text_ranks: for each image the rank of the best of its own captions among all captions, from 1.
        text_to_image_ranks: for each caption the rank of its image among all images, from 1.
    """
    return _both_directions(_rank_metrics(image_to_text_ranks), _rank_metrics(text_to_image_ranks))


def retrieval_chance(captions_per_image: Sequence[int]) -> dict[str, float]:
    """What a random order of the candidates gives, under the names of ``retrieval_metrics``, computed exactly.

    Recalls are expectations; the median rank is the median of a random query's rank.

    Args:
        captions_per_image: how many captions each image has, at least 1 each.
    """
    num_images, num_captions = len(captions_per_image), sum(captions_per_image)
    return _both_directions(_rank_chance(num_captions, Counter(captions_per_image)), _rank_chance(num_images, Counter({1: num_captions})))


def _rank_metrics(ranks: Int[Tensor, " Q"]) -> dict[str, float]:
    recalls = {f"recall_at_{k}": top_k_share(ranks, k) for k in RECALL_AT}
    return recalls | {"median_rank": ranks.double().quantile(0.5).item()}


def _rank_chance(num_candidates: int, queries_by_num_positives: Counter[int]) -> dict[str, float]:
    num_queries = queries_by_num_positives.total()

    def recall_at(k: int) -> Fraction:
        num_misses = Fraction(0)
        for num_positives, num in queries_by_num_positives.items():
            num_misses += num * prod(Fraction(max(num_candidates - k - i, 0), num_candidates - i) for i in range(num_positives))
        return 1 - num_misses / num_queries

    lower_median = bisect_left(range(num_candidates + 1), Fraction(1, 2), key=recall_at)
    upper_median = bisect_right(range(num_candidates + 1), Fraction(1, 2), key=recall_at)
    recalls = {f"recall_at_{k}": float(recall_at(k)) for k in RECALL_AT}
    return recalls | {"median_rank": (lower_median + upper_median) / 2}


def _both_directions(image_to_text: dict[str, float], text_to_image: dict[str, float]) -> dict[str, float]:
    directions = {"image_to_text": image_to_text, "text_to_image": text_to_image}
    metrics = {f"{direction}/{name}": value for direction, values in directions.items() for name, value in values.items()}
    return metrics | {"mean_recall": fmean(value for name, value in metrics.items() if "recall_at" in name)}
