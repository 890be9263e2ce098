"""Image-text retrieval with any number of captions per image."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from statistics import fmean

from timix_pl.metrics.ranking import Ranking, top_k_share

RECALL_AT = (1, 5, 10)
MAP_AT = 10


def retrieval_metrics(image_to_text: Ranking, text_to_image: Ranking) -> dict[str, float]:
    """Recall at 1, 5 and 10, mAP at 10 (0 to 1), median and mean rank (from 1) in both directions, and the mean of the six recalls.

    Args:
        image_to_text: for each image the rank of the best of its own captions among all captions, and its average precision at 10.
        text_to_image: for each caption the rank of its image among all images, and its average precision at 10.
    """
    return _both_directions(_rank_metrics(image_to_text), _rank_metrics(text_to_image))


def retrieval_chance(captions_per_image: Sequence[int]) -> dict[str, float]:
    """The exact metrics of a random order of the candidates; names as in ``retrieval_metrics``.

    Recalls, mAP and the mean rank are expectations; the median rank is the median of a random query's rank.

    Args:
        captions_per_image: number of captions of each image, at least 1.
    """
    num_images, num_captions = len(captions_per_image), sum(captions_per_image)
    return _both_directions(_rank_chance(num_captions, Counter(captions_per_image)), _rank_chance(num_images, Counter({1: num_captions})))


def _rank_metrics(ranking: Ranking) -> dict[str, float]:
    ranks = ranking.best_rank
    return {f"recall_at_{k}": top_k_share(ranks, k) for k in RECALL_AT} | {
        f"map_at_{MAP_AT}": ranking.average_precision.mean().item(),
        "median_rank": ranks.double().quantile(0.5).item(),
        "mean_rank": ranks.double().mean().item(),
    }


def _rank_chance(num_candidates: int, queries_by_num_positives: Counter[int]) -> dict[str, float]:
    num_queries = queries_by_num_positives.total()

    def recall_at(k: int) -> Fraction:
        num_misses = Fraction(0)
        for num_positives, num in queries_by_num_positives.items():
            num_misses += num * prod(Fraction(max(num_candidates - k - i, 0), num_candidates - i) for i in range(num_positives))
        return 1 - num_misses / num_queries

    lower_median = bisect_left(range(num_candidates + 1), Fraction(1, 2), key=recall_at)
    upper_median = bisect_right(range(num_candidates + 1), Fraction(1, 2), key=recall_at)
    by_num_positives = [(num_positives, num / num_queries) for num_positives, num in queries_by_num_positives.items()]
    return {f"recall_at_{k}": float(recall_at(k)) for k in RECALL_AT} | {
        f"map_at_{MAP_AT}": sum(share * _chance_of_average_precision(num_candidates, c) for c, share in by_num_positives),
        "median_rank": (lower_median + upper_median) / 2,
        "mean_rank": sum(share * (num_candidates + 1) / (c + 1) for c, share in by_num_positives),
    }


def _chance_of_average_precision(num_candidates: int, num_positives: int) -> float:
    """Expected average precision at ``MAP_AT`` of a random order.

    With c positives among M candidates, candidate i is positive with probability c / M; then each of the i - 1 before it is positive with
    probability (c - 1) / (M - 1).
    """
    share_of_others = (num_positives - 1) / max(num_candidates - 1, 1)
    precisions = sum((1 + (i - 1) * share_of_others) / i for i in range(1, min(MAP_AT, num_candidates) + 1))
    return num_positives / num_candidates * precisions / min(num_positives, MAP_AT)


def _both_directions(image_to_text: dict[str, float], text_to_image: dict[str, float]) -> dict[str, float]:
    directions = {"image_to_text": image_to_text, "text_to_image": text_to_image}
    metrics = {f"{direction}/{name}": value for direction, values in directions.items() for name, value in values.items()}
    return metrics | {"mean_recall": fmean(value for name, value in metrics.items() if "recall_at" in name)}
