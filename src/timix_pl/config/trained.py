"""Trained models from disk: to use in Python, and to export."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from timix_pl.config.build import read_run
from timix_pl.config.evaluated import FOLDER
from timix_pl.config.init import pretrained_run_of
from timix_pl.config.options import as_typed
from timix_pl.config.parts import load_encoder
from timix_pl.config.run_dir import flat, run_name
from timix_pl.config.schema import DataKind, RootConfig, Task
from timix_pl.core.errors import RunError, TimixError
from timix_pl.core.files import nearest_path
from timix_pl.export import safetensors
from timix_pl.export.formats import export
from timix_pl.export.model_card import Result, RunFacts
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import check_out
from timix_pl.models.towers import open_clip_config
from timix_pl.reports.figures import figures
from timix_pl.training.checkpoint_io import plain_values

log = logging.getLogger(__name__)

CARD_KEYS = (
    "model.architecture", "model.pretrained", "model.text_model", "data.train_shards", "data.region_shards", "data.val_shards",
    "data.global_batch_size", "mixing.kind", "mixing.ratio", "mixing.compute", "loss.kind", "pta.enabled", "pta.block", "optim.lr",
    "optim.weight_decay", "seed",
)  # fmt: skip

SCENES = "scenes (generated)"
SHARDS_OF = {"grounding": "grounding_shards", "noise": "noise_shards"} | dict.fromkeys(
    ("zero_shot", "linear_probe", "knn"), "zero_shot_shards"
)
"""Of ``data``, what an evaluation is done on, if not ``val_shards``."""


def load(path: str | Path, device: str | torch.device = "cpu") -> TrainedModel:
    """A trained model, ready to use.

    Args:
        path: a run directory (its newest whole checkpoint is taken), a checkpoint inside one, or a folder of ``timix-export
            format=safetensors``.
    Raises:
        RunError: there is no checkpoint, or it belongs to another model.
        ModelError: the export is not whole.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: there is no such run directory, checkpoint or export. {nearest_path(path)}")
    return safetensors.load(path, device) if safetensors.is_export(path) else _load_run(*read_run(path), device)


def export_checkpoint(checkpoint: Path, outs: dict[str, Path]) -> None:
    """Export a checkpoint into a folder for each format. What can be written is.

    Args:
        checkpoint: a run directory or a checkpoint inside one.
        outs: format to folder.
    Raises:
        RunError: there is no checkpoint, or it belongs to another model.
        TimixError: after the others were written, when a format failed.
    """
    for out in outs.values():
        check_out(out)
    cfg, path = read_run(checkpoint)
    model = _load_run(cfg, path)
    facts = run_facts(cfg, path)
    problems = []
    for format, out in outs.items():
        try:
            export(model, facts, format, out)
        except TimixError as error:
            problems.append(error)
        else:
            log.info("%s: format=%s; its README.md says how to load it", out, format)
    if problems:
        raise problems[0] if len(problems) == 1 else TimixError("\n".join(str(problem) for problem in problems))


def run_facts(cfg: RootConfig, checkpoint: Path) -> RunFacts:
    """What the model card says of the run."""
    step, values = plain_values(checkpoint)["global_step"], flat(cfg)
    settings = {key: _shown(values[key]) for key in CARD_KEYS if values[key] is not None}
    if cfg.data.kind == DataKind.scenes:
        settings = {"data": f"{SCENES}: {cfg.data.scenes.num_train} pairs"} | settings
    return RunFacts(run_name(cfg), step, step * cfg.data.global_batch_size, settings, _results(cfg, checkpoint.parent.parent))


def _results(cfg: RootConfig, run_dir: Path) -> list[Result]:
    """By metric, those of ``timix-evaluate`` before those of the training's last evaluation."""
    found: dict[str, list[Result]] = {}
    for path in (run_dir / FOLDER / "evaluation.json", run_dir / "evaluation.json"):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for figure in figures(content.get("metrics", {}), content.get("chance", {})):
            task = figure.name.split("/")[0]
            about = content.get("evaluations", {}).get(task)
            data = _data_name(cfg, task, vars(cfg.data) if about is None else about["data"], [] if about is None else about["overrides"])
            data += f", {about['num_samples']:,} samples" if about else ""
            found.setdefault(figure.name, []).append(Result(figure.name, figure.value_text, figure.chance_text, content["step"], data))
    return [result for results in found.values() for result in results]


def _data_name(cfg: RootConfig, task: str, data: Mapping[str, Any], overrides: Sequence[str]) -> str:
    if cfg.data.kind == DataKind.scenes and not any(word.startswith("data") for word in overrides):
        return SCENES
    return _shown(data.get(SHARDS_OF.get(task, "val_shards")) or data.get("val_shards"))


def _load_run(cfg: RootConfig, checkpoint: Path, device: str | torch.device = "cpu") -> TrainedModel:
    if cfg.task is not Task.pretrain:
        raise RunError(
            f"{checkpoint}: a run with task={cfg.task}; only pre-training runs can be loaded and exported; give {pretrained_run_of(cfg)}"
        )
    encoder, _ = load_encoder(cfg, checkpoint)
    config = open_clip_config(
        cfg.model.architecture,
        text_model=cfg.model.text_model,
        image_size_px=cfg.model.image_size_px,
        context_length=cfg.model.context_length,
    )
    return TrainedModel(encoder, config, device)


def _shown(value: Any) -> str:
    """As typed, in one cell of a table, without this machine's folders and without what may be secret in a URL."""
    text = re.sub(r"://[^/@\s]*@", "://", as_typed(_without_folders(value)))
    return re.sub(r"(://[^\s?,'\"]*)\?[^\s,'\"\]}]*", r"\1", text).replace("|", "\\|").replace("\n", " ")


def _without_folders(value: Any) -> Any:
    """With the name alone of each absolute path on this machine."""
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if not isinstance(value, str):
        return value
    if value.startswith("pipe:"):
        return re.sub(r"(?<![\w/:.~-])~?/\S*/", "", value)
    return re.sub(r"^(local-dir:)?(?:file://)?(?:~[^/]*)?/(?:.*/)?([^/]+)/*$", r"\1\2", value)
