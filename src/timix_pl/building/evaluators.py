"""Build the evaluators of ``evaluation.tasks`` from the configuration."""

import logging
from typing import Any

from timix_pl.building.data import evaluation_set, labelled_set
from timix_pl.building.entries import create
from timix_pl.building.keys import RUN
from timix_pl.building.mixing import build_mixing
from timix_pl.config.entry_options import option_keys
from timix_pl.config.facts import value_of
from timix_pl.config.schema import DataKind, RootConfig
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import TimixError, in_keys
from timix_pl.core.metric import Metric
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.data.sets.training_sample import TrainingSample
from timix_pl.evaluation.evaluator import Evaluator, LeftOut
from timix_pl.evaluation.evaluators.grounding import Grounding
from timix_pl.evaluation.results import declared_metric
from timix_pl.mixing.mixer import Mixer
from timix_pl.models.fine_tuned import AnyModel

log = logging.getLogger(__name__)


class ConfiguredRun:
    """A configured run as evaluators see it. Implements :class:`timix_pl.evaluation.evaluator.RunToEvaluate`."""

    def __init__(self, cfg: RootConfig, model: AnyModel):
        self.cfg, self.model = cfg, model

    def value(self, key: str) -> Any:
        return value_of(self.cfg, key)

    def evaluation_set(self, name: str) -> EvaluationSet | None:
        return evaluation_set(self.cfg, name, self.model)

    def labelled_set(self, name: str) -> EvaluationSet | ImageFolder | None:
        return labelled_set(self.cfg, name, self.model)

    def training_sample(self) -> TrainingSample | None:
        found = None if self.cfg.data.kind == DataKind.stream else self.evaluation_set("train")
        return None if found is None else TrainingSample(found, self.cfg.evaluation.num_train_pairs)

    def mixer(self) -> Mixer | None:
        mixing = build_mixing(self.cfg, self.model.patch_grid)
        return mixing.mixer if mixing else None


def grounding_set(cfg: RootConfig, model: AnyModel) -> EvaluationSet | None:
    """The images with boxes of the grounding evaluation; None if there are none."""
    try:
        return Grounding.gather(ConfiguredRun(cfg, model))["dataset"]
    except LeftOut:
        return None


def build_evaluators(cfg: RootConfig, model: AnyModel, problems: dict[str, str] | None = None) -> list[Evaluator]:
    """Build the evaluators of ``evaluation.tasks`` that have the data they need. Log a warning for each of the others.

    Args:
        problems: if given, it receives a message for each task with wrong data, and the other tasks are built.
    Raises:
        TimixError: data is wrong and ``problems`` is None.
    """
    evaluators: list[Evaluator] = []
    for task in cfg.evaluation.tasks:
        keys = RUN | option_keys(EVALUATORS, task) | EVALUATORS[task].gathered
        try:
            with in_keys(keys):
                given = EVALUATORS[task].gather(ConfiguredRun(cfg, model))
                evaluator = create(cfg, EVALUATORS, task, num_workers=cfg.data.num_workers, **given)
            evaluator.keys = keys
            evaluators.append(evaluator)
        except LeftOut as reason:
            log.warning("evaluation.tasks: %s is left out, because %s", task, reason)
        except TimixError as error:
            if problems is None:
                raise
            problems[task] = str(error)
    return evaluators


def built_in_metric(name: str) -> Metric | None:
    """The description of a metric of timix-pl's evaluations by name; None if there is no such metric.

    Used for files of earlier versions, which do not describe their metrics.
    """
    task, _, key = name.partition("/")
    return declared_metric(EVALUATORS[task], key) if task in EVALUATORS else None
