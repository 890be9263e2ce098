"""Questions about images, as shards hold them and as a training step needs them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Sample
from timix_pl.data.shards.reader import BadSampleError, ShardReader

KINDS = ("multiple_choice", "open")
"""How a question can be asked: with choices, of which one is right, or without."""

_SHARDS_AHEAD = 3
_MAX_TARGETS = 10


def kinds_of(kind: str) -> list[str]:
    """The kinds of :data:`KINDS` that one of them, or ``both``, means."""
    return [each for each in KINDS if kind in (each, "both")]


@dataclass(frozen=True)
class Question:
    """A question and its answers: one, or one from each of several people. ``wrong`` are the other choices, if there are any."""

    question: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    type: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The right choice first. Empty where the question has no wrong ones."""
        return (self.answers[0], *self.wrong) if self.wrong else ()


def questions_of(extra: Mapping[str, Any]) -> tuple[Question, ...]:
    """The ``questions`` of a sample's JSON.

    Raises:
        BadSampleError: they are not in the form that docs/your_own_data.md describes.
    """
    entries = extra.get("questions", [])
    if not isinstance(entries, list):
        raise BadSampleError("'questions' in the JSON must be a list")
    return tuple(_question(entry) for entry in entries)


def _question(entry: Any) -> Question:
    try:
        texts, wrong, kind = [entry["question"], *entry["answers"]], entry.get("multiple_choices") or [], entry.get("type")
    except (LookupError, TypeError, AttributeError) as error:
        raise BadSampleError(f"a question needs 'question' and 'answers', but is {entry}") from error
    named = [*texts, *wrong, *([kind] if kind is not None else [])]
    if isinstance(entry["answers"], str) or len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in named):
        raise BadSampleError(f"'answers' and 'multiple_choices' must be lists of texts, at least one answer, but the question is {entry}")
    return Question(texts[0], tuple(texts[1:]), tuple(wrong), kind)


def usable_questions(sample: Sample, kinds: Sequence[str]) -> list[Question]:
    """The questions of a sample. Where only multiple choice is learnt, those with choices.

    Raises:
        BadSampleError: there are none.
    """
    questions = questions_of(sample.extra)
    if not questions:
        raise BadSampleError('the sample has no questions ("questions" in its JSON)')
    usable = [question for question in questions if "open" in kinds or question.choices]
    if not usable:
        raise BadSampleError("none of the sample's questions has multiple_choices; set `kinds=['open']` to learn without them")
    return usable


class QuestionItems:
    """Items of :class:`timix_pl.data.sets.item_set.ItemSet` that are questions.

    A question can be learnt by its choices, if it has any, and by its answers, if one of them is known. A question without a known answer
    stays in the batch, and adds nothing to the loss of open answers.

    Args:
        tokenizer: turns texts into tokens.
        kinds: those of :data:`KINDS` that are learnt.
        answers: the known answers. Their order gives their numbers.
        targets: returns how much each of a question's answers is worth. Its answers are written like those in ``answers``.
    """

    def __init__(
        self,
        tokenizer: Callable[[list[str]], Tensor],
        kinds: Sequence[str],
        answers: Sequence[str],
        targets: Callable[[Iterable[str]], Mapping[str, float]],
    ):
        self.tokenizer, self.kinds, self._targets = tokenizer, tuple(kinds), targets
        self._number_of = {answer: number for number, answer in enumerate(answers)}

    def of(self, sample: Sample) -> list[Question]:
        """See :func:`usable_questions`."""
        return usable_questions(sample, self.kinds)

    def collate(self, items: Sequence[Question]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """``question`` (N T), and the tensors of each kind.

        For multiple choice: ``choices`` (N C T), the right one first, and ``num_choices`` (N), 0 where there are none. For open answers:
        ``answers`` (N K), the numbers of the known answers, and ``shares`` (N K), which sum to 1, or are all 0 where no answer is known.
        """
        tensors, num_items = {"question": shortened(self.tokenizer([item.question for item in items]))}, {}
        if "multiple_choice" in self.kinds:
            most = max(2, *(len(item.choices) for item in items))
            texts = [text for item in items for text in (*item.choices, *[""] * (most - len(item.choices)))]
            tensors["choices"] = shortened(self.tokenizer(texts)).unflatten(0, (len(items), most))
            tensors["num_choices"] = torch.tensor([len(item.choices) for item in items])
            num_items["multiple_choice"] = sum(bool(item.choices) for item in items)
        if "open" in self.kinds:
            known = [self._known(item) for item in items]
            tensors["answers"], tensors["shares"] = (
                torch.zeros(len(items), _MAX_TARGETS, dtype=torch.long),
                torch.zeros(len(items), _MAX_TARGETS),
            )
            for row, targets in enumerate(known):
                tensors["answers"][row, : len(targets)] = torch.tensor(list(targets), dtype=torch.long)
                tensors["shares"][row, : len(targets)] = torch.tensor(list(targets.values()))
            num_items["open"] = sum(bool(targets) for targets in known)
        return tensors, num_items

    def _known(self, item: Question) -> dict[int, float]:
        """The numbers of the ten known answers that are worth most, and their shares, which sum to 1."""
        worth = {self._number_of[answer]: value for answer, value in self._targets(item.answers).items() if answer in self._number_of}
        most = dict(sorted(worth.items(), key=lambda pair: -pair[1])[:_MAX_TARGETS])
        return {number: value / sum(most.values()) for number, value in most.items()}


def shortened(tokens: Int[Tensor, "N T"]) -> Int[Tensor, "N _"]:
    """The tokens without the padding: the last columns, in which every row repeats its last token."""
    differs, length = (tokens != tokens[:, -1:]).any(0).nonzero(), tokens.shape[1]
    used = int(differs[-1]) + 1 if len(differs) else 1
    return tokens if used == length - 1 else tokens[:, :used]  # a row may be full, without padding


def frequent_answers(reader: ShardReader, count: int, normalise: Callable[[str], str], key: str) -> list[str]:
    """The most frequent answers of all samples, as ``normalise`` writes them. No image is read.

    Args:
        count: how many at most. Of equally frequent answers, those that come first in the alphabet are taken.
        key: the configuration key of the shards, for messages.
    Raises:
        DataError: no sample has a question with an answer.
    """
    found: Counter[str] = Counter()
    for number in range(len(reader)):
        reader.expect([], partial(reader.shards_from, number, _SHARDS_AHEAD))
        try:
            questions = questions_of(reader.extra(number))
        except BadSampleError:
            continue  # training meets and reports it
        found.update(normalise(answer) for question in questions for answer in question.answers)
    found.pop("", None)
    if not found:
        raise DataError(
            f'{key}: none of the {len(reader)} samples has questions with answers, and vqa learns from them. Write "questions" into '
            "KEY.json, as docs/your_own_data.md describes."
        )
    return [answer for answer, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]
