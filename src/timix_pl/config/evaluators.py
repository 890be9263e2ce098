"""From the configuration to the evaluators: one builder for each task in ``evaluation.tasks``."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timix_pl.config.parts import evaluation_set
from timix_pl.config.schema import RootConfig
from timix_pl.config.vqa import kinds_of
from timix_pl.core.errors import DataError
from timix_pl.data.remote import RemoteShard, read_beside
from timix_pl.evaluation.captioning import CaptionerLike, Captioning
from timix_pl.evaluation.grounding import Grounding
from timix_pl.evaluation.retrieval import Retrieval
from timix_pl.evaluation.tasks import Evaluator
from timix_pl.evaluation.vqa import Vqa
from timix_pl.evaluation.zero_shot import ZeroShot
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.models.fusion import VqaModel

log = logging.getLogger(__name__)


def build_evaluators(cfg: RootConfig, model: AnyModel) -> list[Evaluator]:
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


def _retrieval(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_captions("retrieval")
    return Retrieval(found, **loading)


def _zero_shot(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    found = evaluation_set(cfg, "zero_shot", model)
    if found is None:
        return "data.zero_shot_shards is not set"
    classes = read_classes(found.sources[0].tars[0])
    return ZeroShot(found, classes["classes"], classes["templates"], **loading)


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
    return "data.val_shards is not set" if found is None else Vqa(found, kinds=kinds_of(cfg), answers=model.answers, **loading)


def _captioning(cfg: RootConfig, model: AnyModel, loading: dict[str, Any]) -> Evaluator | str:
    if not isinstance(model, CaptionerLike):
        return "the model writes no captions (timix-train task=captioning init=RUN_DIR teaches it to)"
    found = evaluation_set(cfg, "val", model)
    if found is None:
        return "data.val_shards is not set"
    found.check_captions("captioning")
    return Captioning(found, **loading)


BUILDERS: dict[str, Callable[[RootConfig, AnyModel, dict[str, Any]], Evaluator | str]] = {
    "retrieval": _retrieval,
    "zero_shot": _zero_shot,
    "grounding": _grounding,
    "vqa": _vqa,
    "captioning": _captioning,
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
