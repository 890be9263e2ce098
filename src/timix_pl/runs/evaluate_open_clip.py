"""Evaluate models that open_clip can load and timix-pl did not train."""

from collections.abc import Sequence
from pathlib import Path

import open_clip

from timix_pl.building.data import prepare_data
from timix_pl.building.evaluators import build_evaluators
from timix_pl.building.keys import RUN
from timix_pl.config.compose import recompose
from timix_pl.config.conf_dir import conf_dir, groups
from timix_pl.config.schema_options import schema_options
from timix_pl.core.errors import ConfigError, in_keys
from timix_pl.core.words import nearest
from timix_pl.evaluation.evaluator import EvaluationError, run_tasks
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.runs.evaluate import EvaluatedModel, about_evaluations
from timix_pl.runs.ranks import joined_ranks

FOLDER_PREFIX = "local-dir:"

_KEYS = RUN | {"architecture=": "checkpoint=open_clip:", "architecture": "checkpoint", "pretrained": "weights"}


def evaluate_open_clip(architecture: str, words: Sequence[str]) -> EvaluatedModel:
    """Evaluate a model of open_clip. Grounding is left out, because the model has no PTA head.

    Args:
        architecture: a name of open_clip, or ``local-dir:FOLDER`` for a folder with a configuration and weights.
        words: ``weights=`` (a file, or a pretrained tag), ``out=`` (a folder for ``evaluation.json``), and overrides of the configuration.
    Raises:
        ConfigError: unknown architecture or weights, wrong overrides, or no evaluation has data.
        ModelError: the weights cannot be loaded.
    """
    own = {"weights": "", "out": ""}
    own |= {key: value for key, _, value in (word.partition("=") for word in words) if key in own}
    overrides = [word for word in words if word.partition("=")[0] not in own]
    out = Path(own["out"]) if own["out"] else None
    if found := [*_problems(architecture, own["weights"]), *_ignored(overrides), *_out_problems(out)]:
        raise ConfigError(found)
    cfg = recompose(conf_dir() / "config.yaml", overrides)
    cfg.pta.enabled, cfg.mixing.kind = False, "none"
    prepare_data(cfg)
    with in_keys(_KEYS):
        model = DualEncoder.create(
            architecture,
            pretrained=own["weights"] or None,
            image_size_px=cfg.model.image_size_px,
            context_length=cfg.model.context_length,
            pta_block=1,
            with_pta=False,
        )
    problems: dict[str, str] = {}
    evaluators = build_evaluators(cfg, model, problems)
    if not evaluators and not problems:
        raise ConfigError(["there is no data to evaluate on: set data.val_shards or data.zero_shot_shards, or data=scenes"])
    with joined_ranks(cfg, Path(own["weights"])) as device:
        try:
            result = run_tasks(evaluators, model.to(device), device)
        except EvaluationError as raised:
            result, problems = raised.result, problems | raised.problems
    error = EvaluationError(problems, result) if problems else None
    done = [evaluator for evaluator in evaluators if evaluator.choice not in problems]
    return EvaluatedModel(f"open_clip:{architecture}", own["weights"], out, about_evaluations(done, cfg, overrides), result, error)


def _ignored(overrides: Sequence[str]) -> list[str]:
    """A problem for each override that is neither about the data nor about the evaluation."""
    may_be_set = [key for key, option in schema_options().items() if option.facts.in_evaluation and not key.startswith(("mixing.", "pta."))]
    keys = {word: word.lstrip("+~").partition("=")[0] for word in overrides}
    choices = groups().keys() - {"experiment", "data", "evaluation", "trainer"}
    return [
        f"{word}: has no effect on a model of open_clip; remove it. Only these may be set: data.*, evaluation.*, "
        "trainer.accelerator, model.image_size_px, model.context_length"
        for word, key in keys.items()
        if key in choices or (key in schema_options() and key not in may_be_set)
    ]


def _out_problems(out: Path | None) -> list[str]:
    return [f"out={out}: is a file; name a folder"] if out and out.exists() and not out.is_dir() else []


def _problems(architecture: str, weights: str) -> list[str]:
    if architecture.startswith(FOLDER_PREFIX):
        folder = Path(architecture.removeprefix(FOLDER_PREFIX))
        if not (folder / "open_clip_config.json").is_file():
            return [f"checkpoint=open_clip:{architecture}: there is no open_clip_config.json; name a folder that holds one and the weights"]
        return [f"weights={weights}: the folder {folder} has its own weights; remove the option"] if weights else []
    if architecture not in open_clip.list_models():
        return [f"checkpoint=open_clip:{architecture}: open_clip has no such architecture{nearest(architecture, open_clip.list_models())}"]
    if Path(weights).suffix == ".ckpt":
        return [f"weights={weights}: a checkpoint of timix-train is evaluated with checkpoint={weights}"]
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if Path(weights).is_file() or weights in tags:
        return []
    said = f"weights={weights}: there is no such file" if weights else "weights= is missing"
    downloaded = f", or a tag that is downloaded: {', '.join(tags)}" if tags else ""
    return [f"{said}; name a weights file{downloaded}"]
