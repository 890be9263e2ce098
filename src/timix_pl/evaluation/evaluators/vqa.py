"""Visual question answering: multiple choice, and open answers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.core.words import with_keys
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.data.sets.questions import Question, kinds_of, questions_of, shortened
from timix_pl.data.shards.reader import BadSampleError
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate
from timix_pl.evaluation.model import evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import over_ranks
from timix_pl.metrics.vqa import answer_accuracy, choice_accuracy, mean_by_type, soft_targets
from timix_pl.models.fusion import VqaModel

log = logging.getLogger(__name__)

_NUM_EXAMPLES = 16
_GUESS = "guessing a choice"
_MOST_FREQUENT = "the most frequent answer in training"

Answered = dict[str, Any]
"""A question and what was made of it: ``image`` (its number), the fields of ``Question``, and ``given`` or ``scores``, by kind."""


@EVALUATORS.register("vqa")
class Vqa(Evaluator):
    """Asks every question of every image; those without choices are left out of multiple choice, in which the others are answered.

    Args:
        dataset: images whose ``extra["questions"]`` are as docs/your_own_data.md describes; those without any are passed over.
        kinds: ``multiple_choice``, ``open`` or both; the model must have learnt them.
        answers: the model's open answers; the first is the most frequent one in training, which is the level of chance.
        batch_size: images, and questions, at a time on each rank.
        num_workers: loader processes per rank.
    """

    title = "VQA"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric(Unit.share, higher_is_better=True, label="accuracy", chance="the mean over the kinds of questions"),
        "multiple_choice/accuracy": Metric(Unit.share, higher_is_better=True, label="multiple choice, accuracy", chance=_GUESS),
        "multiple_choice/accuracy/*": Metric(Unit.share, higher_is_better=True, label="multiple choice, accuracy, {}", chance=_GUESS),
        "open/accuracy": Metric(Unit.share, higher_is_better=True, label="open, accuracy", chance=_MOST_FREQUENT),
        "open/accuracy/*": Metric(Unit.share, higher_is_better=True, label="open, accuracy, {}", chance=_MOST_FREQUENT),
        "open/reachable": Metric(Unit.share, higher_is_better=True, label="open, reachable"),
    }

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        kinds: Sequence[str],
        answers: Sequence[str],
        *,
        batch_size: int,
        num_workers: int = 0,
    ):
        self.dataset, self.kinds, self.answers = dataset, tuple(kinds), list(answers)
        self.batch_size, self.num_workers = batch_size, num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if not isinstance(run.model, VqaModel):
            raise LeftOut("the model was not trained with task=vqa")
        given = super().gather(run)
        given["dataset"].check_questions()
        return given | {"kinds": kinds_of(run.value("vqa.kind")), "answers": run.model.answers}

    def run(self, model: VqaModel, device: torch.device) -> EvaluationResult:
        """Accuracy of each kind, over all questions and by their type, and of all kinds on average; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: there are no questions, or none of the only kind that is asked for; or a sample cannot be read.
        """

        def answer(batch: EvaluationBatch) -> list[list[Answered]]:
            of_image = [self._questions(key, extra) for key, extra in zip(batch.keys, batch.extra, strict=True)]
            asked = [(image, question) for image, questions in enumerate(of_image) for question in questions]
            patches = model.look(batch.images.to(device)) if asked else None
            answered: list[list[Answered]] = [[] for _ in of_image]
            for start in range(0, len(asked), self.batch_size):
                part = asked[start : start + self.batch_size]
                for (image, _), result in zip(part, self._answer(model, patches, part, device), strict=True):
                    answered[image].append(result)
            return answered

        with evaluating(model):
            batches = map_batches(self.dataset, answer, batch_size=self.batch_size, num_workers=self.num_workers)
        images = [image for batch in batches for image in batch]
        found = [answered | {"image": number} for number, image in enumerate(images) for answered in image]
        if not found:
            raise DataError(
                f"None of the {len(images)} evaluation images has questions, and vqa asks them. "
                'Write "questions" into KEY.json, or point `dataset` at a set that has them.'
            )
        metrics, chance = self._metrics(found)
        return named(self, metrics, chance, over_ranks(1, lambda share: [example for _ in share for example in self._examples(found)]))

    def _questions(self, key: str, extra: dict[str, Any]) -> tuple[Question, ...]:
        try:
            return questions_of(extra)
        except BadSampleError as error:
            raise BadSampleError(f"Sample '{key}': {error}; repair or remove it, evaluation leaves nothing out") from error

    def _answer(self, model: VqaModel, patches: Tensor | None, part: list[tuple[int, Question]], device: torch.device) -> list[Answered]:
        index = torch.tensor([image for image, _ in part], device=device)
        questions = [question for _, question in part]
        tokens = model.token_features(shortened(model.tokenizer([question.question for question in questions])).to(device))
        answered: list[Answered] = [{"question": question} for question in questions]
        if "open" in self.kinds:
            for result, best in zip(answered, model.answer_logits(patches, tokens, index).argmax(1).tolist(), strict=True):
                result["given"] = self.answers[best]
        with_choices = [number for number, question in enumerate(questions) if question.choices]
        if "multiple_choice" in self.kinds and with_choices:
            choices = [questions[number].choices for number in with_choices]
            most = max(map(len, choices))
            texts = [text for each in choices for text in (*each, *[""] * (most - len(each)))]
            scores = model.choice_scores(
                patches,
                (tokens[0][with_choices], tokens[1][with_choices]),
                shortened(model.tokenizer(texts)).unflatten(0, (-1, most)).to(device),
                torch.tensor([len(each) for each in choices], device=device),
                index[with_choices],
            )
            for number, each, row in zip(with_choices, choices, scores.float().cpu().tolist(), strict=True):
                answered[number]["scores"] = row[: len(each)]
        return answered

    def _metrics(self, found: list[Answered]) -> tuple[dict[str, float], dict[str, float]]:
        metrics: dict[str, float] = {}
        chance: dict[str, float] = {}
        rules: dict[str, tuple[str, Callable[[Answered], float], Callable[[Answered], float]]] = {
            "multiple_choice": ("scores", lambda one: choice_accuracy(one["scores"], 0), lambda one: 1 / len(one["scores"])),
            "open": ("given", lambda one: _open(one, one["given"]), lambda one: _open(one, self.answers[0])),
        }
        for kind in self.kinds:
            key, accuracy, guessing = rules[kind]
            asked = [one for one in found if key in one]
            if not asked:
                problem = (
                    f"none of the {len(found)} questions of the evaluation set has choices, which multiple choice needs: write "
                    "\"multiple_choices\" beside their answers, or evaluate open answers with `kinds=['open']`"
                )
                if len(self.kinds) == 1:
                    raise DataError(problem)
                log.warning("%s/multiple_choice is left out: %s", self.choice, with_keys(problem, self.keys))
                continue
            types = [one["question"].type for one in asked]
            for values, rule in ((metrics, accuracy), (chance, guessing)):
                values |= {f"{kind}/{name}": value for name, value in mean_by_type([rule(one) for one in asked], types).items()}
        for values in (metrics, chance):
            values["accuracy"] = float(np.mean([values[name] for name in values if name.endswith("/accuracy")]))
        if "open" in self.kinds:
            metrics["open/reachable"] = self._reachable(found)
        return metrics, chance

    def _reachable(self, found: list[Answered]) -> float:
        """The accuracy of always choosing the best of the known answers."""
        known = set(self.answers)
        best = [[form for form in soft_targets(one["question"].answers) if form in known] for one in found]
        return float(np.mean([max((_open(one, form) for form in forms), default=0.0) for one, forms in zip(found, best, strict=True)]))

    def _examples(self, found: list[Answered]) -> list[dict[str, Any]]:
        """As many right as wrong ones, where there are, spread over the set."""
        found = [one for one in found if "scores" in one or "given" in one]
        right = [self._right(one) for one in found]
        chosen: list[int] = []
        for kind in (True, False):
            of_kind = [number for number, is_right in enumerate(right) if is_right == kind]
            spread = np.linspace(0, len(of_kind) - 1, min(_NUM_EXAMPLES // 2, len(of_kind)), dtype=int)
            chosen += [of_kind[position] for position in spread]
        return [self._example(found[number], right[number]) for number in sorted(chosen)]

    def _right(self, one: Answered) -> bool:
        """By its choices, where it has been asked so; else by its open answer."""
        if "scores" in one:
            return choice_accuracy(one["scores"], 0) == 1
        return _open(one, one["given"]) > 0.5

    def _example(self, one: Answered, right: bool) -> dict[str, Any]:
        question: Question = one["question"]
        shown = {"image": self.dataset[one["image"]].image, "question": question.question, "right": right}
        if "given" in one:
            shown |= {"given": one["given"], "accuracy": round(_open(one, one["given"]), 4)}
        if "scores" in one:
            shares = torch.tensor(one["scores"]).softmax(0).tolist()
            order = np.argsort(shares)[::-1].tolist()
            shown["choices"] = [{"choice": question.choices[number], "score": round(shares[number], 4)} for number in order]
        return shown | {"answers": list(question.answers)} | ({"type": question.type} if question.type else {})


def _open(one: Answered, given: str) -> float:
    return answer_accuracy(given, one["question"].answers)
