"""From the configuration to the evaluators: one builder for each task in ``evaluation.tasks``."""

import logging
from collections.abc import Callable
from typing import Any

from timix_pl.building.class_names import class_names
from timix_pl.building.data import evaluation_set, labelled_set
from timix_pl.building.mixing import build_mixing
from timix_pl.building.vqa import kinds_of
from timix_pl.config.schema import DataKind, MixingKind, RootConfig, Task
from timix_pl.core.errors import DataError, TimixError
from timix_pl.core.metric import Metric
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.data.sets.training_sample import TrainingSample
from timix_pl.evaluation.captioning import CaptionerLike, Captioning
from timix_pl.evaluation.carry_over import CarryOver
from timix_pl.evaluation.grounding import Grounding
from timix_pl.evaluation.knn import Knn
from timix_pl.evaluation.linear_probe import LinearProbe
from timix_pl.evaluation.mutual_information import MutualInformation
from timix_pl.evaluation.noise import Noise, field_of
from timix_pl.evaluation.results import declared_metric
from timix_pl.evaluation.retrieval import Retrieval
from timix_pl.evaluation.tasks import Evaluator
from timix_pl.evaluation.vqa import Vqa
from timix_pl.evaluation.zero_shot import ZeroShot
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.models.fusion import VqaModel

log = logging.getLogger(__name__)


def build_evaluators(cfg: RootConfig, model: AnyModel, problems: dict[str, str] | None = None) -> list[Evaluator]:
    """The evaluators of ``evaluation.tasks`` that have what they need; the others are named in the log.

    Args:
        problems: takes the task and the message of each whose data is wrong, so that the others can run.
    Raises:
        TimixError: data is wrong, where there are no ``problems`` to take it.
    """
    loading = {"batch_size": cfg.evaluation.batch_size, "num_workers": cfg.data.num_workers}
    evaluators: list[Evaluator] = []
    for task in cfg.evaluation.tasks:
        try:
            built = BUILDERS[task](cfg, model, loading)
        except TimixError as error:
            if problems is None:
                raise
            problems[task] = str(error)
            continue
        if isinstance(built, str):
            log.warning("evaluation.tasks: %s is left out, because %s", task, built)
        else:
            evaluators.append(built)
    return evaluators


def _retrieval(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_captions("retrieval")
    return Retrieval(found, captions_per_image=cfg.evaluation.captions_per_image, num_folds=cfg.evaluation.retrieval_folds, **loading)


def _zero_shot(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    found = labelled_set(cfg, "zero_shot", model)
    return "data.zero_shot_shards is not set" if found is None else ZeroShot(found, *class_names(cfg, found), **loading)


def _grounding(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if model.pta is None:
        return "pta.enabled=false"
    found = evaluation_set(cfg, "grounding", model)
    if found is not None:
        return Grounding(found, min_cover=cfg.pta.min_cover, phrase_template=cfg.data.phrase_template, **loading)
    if cfg.data.val_shards is None:
        return "data.grounding_shards is not set"
    return (
        "data.grounding_shards is not set and none of the samples looked at in data.val_shards has a usable box; "
        "where few have one, set data.grounding_shards to the same"
    )


def _vqa(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if not isinstance(model, VqaModel):
        return "the model was not trained with task=vqa"
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_questions()
    return Vqa(found, kinds=kinds_of(cfg), answers=model.answers, **loading)


def _captioning(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if not isinstance(model, CaptionerLike):
        return "the model writes no captions (timix-train task=captioning init=RUN_DIR teaches it to)"
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_captions("captioning")
    return Captioning(found, **loading)


def _carry_over(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if model.pta is None:
        return "pta.enabled=false"
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    return CarryOver(found, min_side=cfg.mixing.min_side, max_side=cfg.mixing.max_side, **loading)


def _probe(kind: type[LinearProbe] | type[Knn]) -> Callable[[RootConfig, AnyModel, dict[str, Any]], Evaluator | str]:
    def build(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
        train, test = labelled_set(cfg, "probe_train", model), labelled_set(cfg, "zero_shot", model)
        if train is None or test is None:
            return f"data.{'probe_train' if train is None else 'zero_shot'}_shards is not set"
        if cfg.data.probe_train_shards == cfg.data.zero_shot_shards:
            raise DataError(
                f"data.probe_train_shards={cfg.data.probe_train_shards} is data.zero_shot_shards too: a test on what was learned from "
                "says nothing; name another set"
            )
        if isinstance(train, ImageFolder) and isinstance(test, ImageFolder) and train.class_folders != test.class_folders:
            differing = sorted(set(train.class_folders) ^ set(test.class_folders))
            raise DataError(
                f"data.probe_train_shards={train.folder} and data.zero_shot_shards={test.folder} must have the same class folders, and "
                f"{len(differing)} are in one alone, the first of them {differing[0]}."
            )
        return kind(train, test, **loading)

    return build


def _noise(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if cfg.task is not Task.pretrain:
        return f"a model of task={cfg.task} compares no pairs"
    held_out, train = evaluation_set(cfg, "noise", model), _training_sample(cfg, model)
    field = cfg.evaluation.noise_field
    if held_out is not None and train is not None and field_of(train[0].extra, field) is None:
        log.info("noise: the training pairs have no field %s (evaluation.noise_field); only data.noise_shards are looked at", field)
        train = None
    if held_out is None and train is None:
        return "data.noise_shards is not set and data=stream has no fixed sample of training pairs"
    return Noise(held_out, train, field=field, min_score=cfg.evaluation.noise_min_score, num_pairs=cfg.evaluation.mi_pairs, **loading)


def _mutual_information(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if cfg.task is not Task.pretrain:
        return f"a model of task={cfg.task} compares no pairs"
    held_out, train = evaluation_set(cfg, "val", model), _training_sample(cfg, model)
    if held_out is None and train is None:
        return "data.val_shards is not set and data=stream has no fixed sample of training pairs"
    mixing = build_mixing(cfg, model.patch_grid)
    if cfg.mixing.kind == MixingKind.mixgen:
        log.info("mutual_information: MixGen's mixed pairs have no bound of their own, since their joined captions share parts")
        mixing = None
    mixer = mixing.mixer if mixing else None
    return MutualInformation(held_out, train, mixer=mixer, num_pairs=cfg.evaluation.mi_pairs, **loading)


def _training_sample(cfg: RootConfig, model: AnyModel) -> TrainingSample | None:
    found = None if cfg.data.kind == DataKind.stream else evaluation_set(cfg, "train", model)
    return None if found is None else TrainingSample(found, cfg.evaluation.num_train_pairs)


BUILDERS: dict[str, Callable[[RootConfig, AnyModel, dict[str, Any]], Evaluator | str]] = {
    "retrieval": _retrieval,
    "zero_shot": _zero_shot,
    "grounding": _grounding,
    "carry_over": _carry_over,
    "linear_probe": _probe(LinearProbe),
    "knn": _probe(Knn),
    "noise": _noise,
    "mutual_information": _mutual_information,
    "vqa": _vqa,
    "captioning": _captioning,
}
"""For each task its evaluator, or why there is none."""


CLASSES: dict[str, type[Evaluator]] = {
    "retrieval": Retrieval,
    "zero_shot": ZeroShot,
    "grounding": Grounding,
    "carry_over": CarryOver,
    "linear_probe": LinearProbe,
    "knn": Knn,
    "noise": Noise,
    "mutual_information": MutualInformation,
    "vqa": Vqa,
    "captioning": Captioning,
}
"""Of each task."""


def built_in_metric(name: str) -> Metric | None:
    """What the evaluator of a task declares of a metric; None where no task has such a metric.

    For files of earlier versions, which do not describe their metrics.
    """
    task, _, key = name.partition("/")
    return declared_metric(CLASSES[task], key) if task in CLASSES else None
