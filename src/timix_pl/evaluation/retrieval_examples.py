"""Queries with what they found, for people to look at."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.data.sets.evaluation_set import EvaluationItem

NUM_QUERIES = 8
NUM_FOUND = 5


def retrieval_examples(
    dataset: Dataset[EvaluationItem],
    captions: Sequence[str],
    image_of_text: Int[Tensor, " M"],
    image_features: Float[Tensor, "N D"],
    text_features: Float[Tensor, "M D"],
    image_to_text_ranks: Int[Tensor, " N"],
    text_to_image_ranks: Int[Tensor, " M"],
) -> list[dict[str, Any]]:
    """Eight queries each way, half of them answered right at first where there are so many of both, spread evenly over the set.

    Args:
        image_of_text: the image that each caption belongs to.
        image_to_text_ranks, text_to_image_ranks: of the best right answer, from 1.
    Returns:
        ``rank``, ``found`` (the five best, each ``right`` or not) and the query: a ``caption``, which found images, or an ``image``, which
        found captions. Where none of the five is right, ``answer`` is a right one.
    """
    examples: list[dict[str, Any]] = []
    for query in chosen_queries(text_to_image_ranks):
        own = int(image_of_text[query])
        found = [{"image": dataset[n].image, "right": n == own} for n in best_candidates(text_features[query], image_features)]
        answer: dict[str, Any] = {} if any(entry["right"] for entry in found) else {"answer": {"image": dataset[own].image}}
        examples.append({"caption": captions[query], "rank": int(text_to_image_ranks[query]), "found": found} | answer)
    for query in chosen_queries(image_to_text_ranks):
        found = [
            {"caption": captions[n], "right": int(image_of_text[n]) == query} for n in best_candidates(image_features[query], text_features)
        ]
        first = int((image_of_text == query).nonzero()[0])
        answer = {} if any(entry["right"] for entry in found) else {"answer": {"caption": captions[first]}}
        examples.append({"image": dataset[query].image, "rank": int(image_to_text_ranks[query]), "found": found} | answer)
    return examples


def chosen_queries(ranks: Int[Tensor, " Q"]) -> list[int]:
    """At most eight queries: four of rank 1 and four others, more of one kind where the other has fewer; each kind spread evenly."""
    right, wrong = ((ranks == 1).nonzero()[:, 0].tolist(), (ranks > 1).nonzero()[:, 0].tolist())
    num_right = min(len(right), max(NUM_QUERIES // 2, NUM_QUERIES - len(wrong)))
    return _spread(right, num_right) + _spread(wrong, min(len(wrong), NUM_QUERIES - num_right))


def best_candidates(query: Float[Tensor, " D"], candidates: Float[Tensor, "C D"]) -> list[int]:
    """The five best; of equally good ones those that come first."""
    return (candidates @ query).argsort(descending=True, stable=True)[:NUM_FOUND].tolist()


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    return [numbers[int(place)] for place in torch.linspace(0, len(numbers) - 1, count)] if count else []
