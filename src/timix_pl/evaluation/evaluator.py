"""What every evaluation is, and several of them on one model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch

from timix_pl.core.errors import TimixError, in_keys
from timix_pl.core.metric import Metric
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.data.sets.training_sample import TrainingSample
from timix_pl.evaluation.model import DualEncoderLike
from timix_pl.mixing.mixer import Mixer


class LeftOut(Exception):
    """An evaluation cannot run here, though nothing is wrong: the reason, as the end of a sentence."""


class RunToEvaluate(Protocol):
    """What a run offers to its evaluations."""

    model: Any
    """The run's model."""

    def value(self, key: str) -> Any:
        """The value of an option, by its dotted key."""

    def evaluation_set(self, name: str) -> EvaluationSet | None:
        """The samples of ``data.NAME_shards``; None if that is not set."""

    def labelled_set(self, name: str) -> EvaluationSet | ImageFolder | None:
        """The labelled images of ``data.NAME_shards``, which may also be a folder of class folders; None if that is not set."""

    def training_sample(self) -> TrainingSample | None:
        """A fixed sample of the training pairs; None if they have no order."""

    def mixer(self) -> Mixer | None:
        """The run's mixing strategy; None for plain CLIP."""


def required(found: Any, key: str) -> Any:
    """What was found.

    Raises:
        LeftOut: nothing, because ``key`` is not set.
    """
    if found is None:
        raise LeftOut(f"{key} is not set")
    return found


class Evaluator(ABC):
    """One evaluation. Keyword-only parameters of the constructor are options of the configuration.

    An evaluation that needs captions calls ``check_captions`` of its dataset in :meth:`gather`, and
    :func:`timix_pl.evaluation.batches.require_captions` on each batch.

    Args:
        dataset: what is evaluated on.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
    """

    choice: str
    """The name that it is registered under. The metrics' names begin with it."""
    title: ClassVar[str] = ""
    """The heading of its metrics in reports, as it stands inside a sentence; empty: its choice."""
    metrics: ClassVar[Mapping[str, Metric]] = {}
    """What each metric is, by its name without the evaluator's; see :func:`timix_pl.core.metric.describe`. Others are plain numbers."""

    gathered: ClassVar[Mapping[str, str]] = {"dataset": "data.val_shards"}
    """The keys of what :meth:`gather` gives, by parameter of the constructor."""
    keys: Mapping[str, str] = {}
    """What the user calls the parameters that messages name; see :func:`timix_pl.core.words.with_keys`."""

    def __init__(self, dataset: Any, *, batch_size: int = 128, num_workers: int = 0):
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """The constructor's arguments that come from a run; by default the validation pairs as ``dataset``.

        Raises:
            LeftOut: the run has not what the evaluation needs.
            TimixError: its data is wrong.
        """
        return {"dataset": required(run.evaluation_set("val"), cls.gathered["dataset"])}

    @abstractmethod
    def run(self, model: Any, device: torch.device) -> EvaluationResult:
        """Evaluate a model that lies on ``device``. Called on all ranks; the result is the same on each."""


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
            with in_keys(getattr(evaluator, "keys", {})):
                found = evaluator.run(model, device)
        except TimixError as error:
            problems[evaluator.choice] = str(error)
        else:
            result.metrics.update(found.metrics)
            result.chance.update(found.chance)
            examples.update(found.examples)
            descriptions.update(found.descriptions)
    if problems:
        raise EvaluationError(problems, result)
    return result
