"""Accuracy of visual question answering, and the normalisation of answers."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = dict(
    zip(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], map(str, range(11)), strict=True)
)
_NUMBERS["none"] = "0"
_ARTICLES = ("a", "an", "the")
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll "
    "how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't she'd've "
    "should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd "
    "something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've "
    "we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's "
    "won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've 'ow's'at"
)
_CONTRACTIONS = {
    word[: at.start()] + word[at.end() :]: word for word in _CONTRACTED.split() for at in re.finditer("'", word)
}  # each contraction with one apostrophe missing -> the contraction
_NUM_TO_AGREE = 3


def normalise_answer(text: str) -> str:
    """Normalise an answer for comparison: lower case, no punctuation, no articles, digits for number words, apostrophes restored.

    A punctuation mark is removed if a space stands beside one of its occurrences, or if the text has a number like 1,000; otherwise it
    becomes a space. A full stop is kept only before a digit.

    Source: Antol et al. 2015, section 3, and the rules of visualqa.org/evaluation.

    Example:
        >>> normalise_answer("The two dogs, dont run.")
        "2 dogs don't run"
    """
    text = " ".join(text.split())
    grouped = re.search(r"\d,\d", text) is not None
    marks = [(mark, grouped or f"{mark} " in text or f" {mark}" in text) for mark in _MARKS]
    for mark, goes in marks:
        text = text.replace(mark, "" if goes else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_accuracy(given: str, answers: Sequence[str]) -> float:
    """VQA accuracy of an answer: min(1, matches / 3), averaged over the human answers, each of which is left out in turn.

    With a single human answer: 1 if it matches, else 0. Answers are compared after :func:`normalise_answer`; the published script does not
    normalise them if all people gave the same answer.

    Raises:
        ValueError: there are no answers.
    Source: Antol et al. 2015, section 3; Goyal et al. 2017; visualqa.org/evaluation.

    Example:
        >>> answer_accuracy("Two", ["2"] * 3 + ["3"] * 7)
        0.9
    """
    if not answers:
        raise ValueError("a question without an answer cannot be judged")
    matches = np.array([normalise_answer(answer) == normalise_answer(given) for answer in answers])
    if len(matches) == 1:
        return float(matches[0])
    return float(np.minimum(1.0, (matches.sum() - matches) / _NUM_TO_AGREE).mean())


def soft_targets(answers: Iterable[str]) -> dict[str, float]:
    """The target value of each normalised answer: min(1, times given / 3); 1 for a single answer.

    Source: Teney et al. 2018, section 3.6.
    """
    forms = [normalise_answer(answer) for answer in answers]
    needed = min(len(forms), _NUM_TO_AGREE)
    return {form: min(1.0, forms.count(form) / needed) for form in dict.fromkeys(forms)}


def choice_accuracy(scores: Sequence[float], right: int) -> float:
    """1 if the right choice has the highest score, 1 / n if n choices share it, else 0."""
    best = max(scores)
    return 1.0 / list(scores).count(best) if scores[right] == best else 0.0


def mean_by_type(values: Sequence[float], types: Sequence[str | None]) -> dict[str, float]:
    """The mean of all values as ``accuracy``, and the mean of each type as ``accuracy/TYPE``. Values of type None have no type."""
    means = {"accuracy": float(np.mean(values))}
    for kind in sorted({kind for kind in types if kind is not None}):
        means[f"accuracy/{kind}"] = float(np.mean([value for value, of in zip(values, types, strict=True) if of == kind]))
    return means
