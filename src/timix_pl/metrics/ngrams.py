"""N-grams of words."""

from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[str]
Ngram = tuple[str, ...]


def count_ngrams(tokens: Tokens, max_n: int) -> Counter[Ngram]:
    """The number of occurrences of each n-gram of 1 to ``max_n`` words."""
    words = tuple(tokens)
    return Counter(words[i : i + n] for n in range(1, max_n + 1) for i in range(len(words) - n + 1))
