"""From the configuration to the evaluators: one builder for each task in ``evaluation.tasks``."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timix_pl.config.parts import build_mixing, evaluation_set
from timix_pl.config.schema import DataKind, MixingKind, RootConfig
from timix_pl.core.errors import DataError
from timix_pl.data.remote import RemoteShard, read_beside
from timix_pl.data.training_sample import TrainingSample
from timix_pl.evaluation.grounding import Grounding
from timix_pl.evaluation.mutual_information import MutualInformation
from timix_pl.evaluation.noise import Noise, field_of
from timix_pl.evaluation.retrieval import Retrieval
from timix_pl.evaluation.tasks import Evaluator
from timix_pl.evaluation.zero_shot import ZeroShot
from timix_pl.models.dual_encoder import DualEncoder

log = logging.getLogger(__name__)


def build_evaluators(cfg: RootConfig, model: DualEncoder) -> list[Evaluator]:
    """The evaluators of ``evaluation.tasks`` that have what they need; the others are named in the log."""
    loading = {"batch_size": cfg.evaluation.batch_size, "num_workers": cfg.data.num_workers}
    evaluators: list[Evaluator] = []
    for task in cfg.evaluation.tasks:
        built = BUILDERS[task](cfg, model, loading)
        if isinstance(built, str):
            log.warning("evaluation.tasks: %s is left out, because %s", task, built)
        else:
            evaluators.append(built)
    return evaluators


def _retrieval(cfg: RootConfig, model: DualEncoder, loading: dict[str, Any]) -> Evaluator | str:
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_captions()
    return Retrieval(found, **loading)


def _zero_shot(cfg: RootConfig, model: DualEncoder, loading: dict[str, Any]) -> Evaluator | str:
    found = evaluation_set(cfg, "zero_shot", model)
    if found is None:
        return "data.zero_shot_shards is not set"
    classes = read_classes(found.sources[0].tars[0])
    return ZeroShot(found, classes["classes"], classes["templates"], **loading)


def _grounding(cfg: RootConfig, model: DualEncoder, loading: dict[str, Any]) -> Evaluator | str:
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


def _noise(cfg: RootConfig, model: DualEncoder, loading: dict[str, Any]) -> Evaluator | str:
    held_out, train = evaluation_set(cfg, "noise", model), _training_sample(cfg, model)
    field = cfg.evaluation.noise_field
    if held_out is not None and train is not None and field_of(train[0].extra, field) is None:
        log.info("noise: the training pairs have no field %s (evaluation.noise_field); only data.noise_shards are looked at", field)
        train = None
    if held_out is None and train is None:
        return "data.noise_shards is not set and data=stream has no fixed sample of training pairs"
    return Noise(held_out, train, field=field, min_score=cfg.evaluation.noise_min_score, num_pairs=cfg.evaluation.mi_pairs, **loading)


def _mutual_information(cfg: RootConfig, model: DualEncoder, loading: dict[str, Any]) -> Evaluator | str:
    held_out, train = evaluation_set(cfg, "val", model), _training_sample(cfg, model)
    if held_out is None and train is None:
        return "data.val_shards is not set and data=stream has no fixed sample of training pairs"
    mixing = build_mixing(cfg, model.patch_grid)
    if cfg.mixing.kind == MixingKind.mixgen:
        log.info("mutual_information: MixGen's mixed pairs have no bound of their own, since their joined captions share parts")
        mixing = None
    mixer = mixing.mixer if mixing else None
    return MutualInformation(held_out, train, mixer=mixer, num_pairs=cfg.evaluation.mi_pairs, **loading)


def _training_sample(cfg: RootConfig, model: DualEncoder) -> TrainingSample | None:
    found = None if cfg.data.kind == DataKind.stream else evaluation_set(cfg, "train", model)
    return None if found is None else TrainingSample(found, cfg.evaluation.num_train_pairs)


BUILDERS: dict[str, Callable[[RootConfig, DualEncoder, dict[str, Any]], Evaluator | str]] = {
    "retrieval": _retrieval,
    "zero_shot": _zero_shot,
    "grounding": _grounding,
    "noise": _noise,
    "mutual_information": _mutual_information,
}
"""For each task its evaluator, or why there is none."""


def read_classes(tar: Path | RemoteShard) -> dict[str, list[str]]:
    """Class names and caption templates of a labelled set, from ``classes.json`` beside its shards.

    Raises:
        DataError: the file is missing or holds something else.
    """
    try:
        content = json.loads(read_beside(tar, "classes.json"))
        return {name: [str(text) for text in content[name]] for name in ("classes", "templates")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"data.zero_shot_shards: classes.json beside {tar.name} must hold "
            f'{{"classes": [...], "templates": ["a photo of a {{}}", ...]}}, but: {error}'
        ) from error
