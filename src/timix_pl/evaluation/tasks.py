"""Several evaluations of one model."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from timix_pl.core.errors import TimixError
from timix_pl.core.metric import Metric
from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.model import DualEncoderLike


@runtime_checkable
class Evaluator(Protocol):
    """What ``run_tasks`` runs: ``Retrieval``, ``ZeroShot``, ``Grounding``, or your own.

    An evaluator declares its metrics on its class. ``metrics`` describes each by its name without the evaluator's, see
    :func:`timix_pl.core.metric.describe`. ``title`` is their heading in reports, as it stands inside a sentence. Without these, metrics are
    shown under their names, as plain numbers.
    """

    name: str

    def run(self, model: Any, device: torch.device) -> EvaluationResult: ...


class EvaluationError(TimixError):
    """Some evaluations failed; ``result`` holds what the others found, ``problems`` each failed one's name and message."""

    def __init__(self, problems: dict[str, str], result: EvaluationResult):
        self.problems = problems
        self.result = result
        super().__init__("\n".join(f"{name}: {message}" for name, message in problems.items()))


def run_tasks(evaluators: Sequence[Evaluator], model: DualEncoderLike, device: torch.device) -> EvaluationResult:
    """Run all evaluators, and return their results together.

    Raises:
        EvaluationError: after all have run, when some raised a ``TimixError``; it carries the others' result.
    """
    examples: dict[str, list[dict[str, Any]]] = {}
    descriptions: dict[str, Metric] = {}
    result = EvaluationResult({}, {}, examples, descriptions)
    problems = {}
    for evaluator in evaluators:
        try:
            found = evaluator.run(model, device)
        except TimixError as error:
            problems[evaluator.name] = str(error)
        else:
            result.metrics.update(found.metrics)
            result.chance.update(found.chance)
            examples.update(found.examples)
            descriptions.update(found.descriptions)
    if problems:
        raise EvaluationError(problems, result)
    return result
