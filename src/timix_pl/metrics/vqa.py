"""Visual question answering: what counts as the same answer, and how right an answer is."""

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
}  # one apostrophe forgotten
_NUM_TO_AGREE = 3


def normalise_answer(text: str) -> str:
    """The form in which answers are compared: lower case, without punctuation and articles, number words as digits, apostrophes restored.

    A mark of punctuation with a space beside it, or in a text with a number like 1,000, goes; another becomes a space. A full stop stays
    only before a digit.

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
    """How right an answer is: the mean over the answers of people, each left out in turn, of min(1, matches among the others / 3).

    With a single answer: 1 where it is the same, else 0. Answers are compared in the form of :func:`normalise_answer`; the published
    script leaves them as they are where all people gave the same one.

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
    """What each answer, in its compared form, is worth as a target: min(1, times given / 3); of a single answer 1.

    Source: Teney et al. 2018, section 3.6.
    """
    forms = [normalise_answer(answer) for answer in answers]
    needed = min(len(forms), _NUM_TO_AGREE)
    return {form: min(1.0, forms.count(form) / needed) for form in dict.fromkeys(forms)}


def choice_accuracy(scores: Sequence[float], right: int) -> float:
    """1 where the right choice has the highest score alone, a share of 1 where others have the same, else 0."""
    best = max(scores)
    return 1.0 / list(scores).count(best) if scores[right] == best else 0.0


def mean_by_type(values: Sequence[float], types: Sequence[str | None]) -> dict[str, float]:
    """``accuracy`` over all, and ``accuracy/TYPE`` over those of each type, by name."""
    means = {"accuracy": float(np.mean(values))}
    for kind in sorted({kind for kind in types if kind is not None}):
        means[f"accuracy/{kind}"] = float(np.mean([value for value, of in zip(values, types, strict=True) if of == kind]))
    return means
