"""Export a checkpoint, and collect the facts for its model card."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from timix_pl.building.evaluators import built_in_metric
from timix_pl.config.schema import DataKind, RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.config.values import flat, run_name
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import TimixError
from timix_pl.core.metric import descriptions_in
from timix_pl.core.words import as_typed
from timix_pl.evaluation.evaluator import Evaluator
from timix_pl.export.export import export
from timix_pl.export.model_card import Result, RunFacts
from timix_pl.export.writing import check_out
from timix_pl.reports.figures import figures
from timix_pl.runs.evaluate import FOLDER, read_run
from timix_pl.runs.load import load_run
from timix_pl.training.checkpoint_io import plain_values

log = logging.getLogger(__name__)

SCENES = "scenes (generated)"

_LOCAL = r"(?:(?i:file):(?://[^/\s]*)?|~[^/\s]*)?"
"""A regular expression for what may precede an absolute path: ``file:``, a host, or ``~user``."""


def export_checkpoint(checkpoint: Path, outs: dict[str, Path], weights: str = "last") -> None:
    """Export a checkpoint, each format to its folder. If one format fails, the others are written nevertheless.

    Args:
        checkpoint: a run directory or a checkpoint inside one.
        outs: format to folder.
        weights: ``last``, or ``ema``: their moving average.
    Raises:
        RunError: there is no checkpoint, it belongs to another model, or it lacks these weights.
        TimixError: a format failed; raised after the others were written.
    """
    for out in outs.values():
        check_out(out)
    cfg, path = read_run(checkpoint)
    model = load_run(cfg, path, weights=weights)
    facts = run_facts(cfg, path, weights)
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


def run_facts(cfg: RootConfig, checkpoint: Path, weights: str = "last") -> RunFacts:
    """The facts about the run for the model card."""
    step, values = plain_values(checkpoint)["global_step"], flat(cfg)
    on_card = [key for key, option in schema_options().items() if option.facts.on_card and values[key] is not None]
    settings = {key: _shown(values[key]) for key in on_card}
    if cfg.data.kind == DataKind.scenes:
        settings = {"data": f"{SCENES}: {cfg.data.scenes.num_train} pairs"} | settings
    if weights == "ema":
        settings |= {"weights": f"moving average, optim.ema={as_typed(cfg.optim.ema)}"}
    run_dir = checkpoint.parent.parent
    return RunFacts(run_name(cfg, run_dir), step, step * cfg.data.global_batch_size, settings, _results(cfg, run_dir))


def _results(cfg: RootConfig, run_dir: Path) -> list[Result]:
    """The results, grouped by metric; those of ``timix-evaluate`` come before those of the last evaluation in training."""
    found: dict[str, list[Result]] = {}
    for path in (run_dir / FOLDER / "evaluation.json", run_dir / "evaluation.json"):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for figure in figures(content.get("metrics", {}), content.get("chance", {}), descriptions_in(content, built_in_metric)):
            about = content.get("evaluations", {}).get(figure.name.split("/")[0])
            data = "; ".join(_data_name(cfg, figure.name, of_set, about) for of_set in _sets(figure.name, content["metrics"]))
            found.setdefault(figure.name, []).append(Result(figure.name, figure.value_text, figure.chance_text, content["step"], data))
    return [result for results in found.values() for result in results]


def _sets(metric: str, metrics: Collection[str]) -> list[str]:
    """The sets of samples that a metric describes, with the evaluator's names for them."""
    task, of = metric.split("/")[:2]
    if "held_out" not in _gathered(task):
        return ["test"]
    both = ["held_out", "train"]
    return [name for name in both if of.startswith(name)] or [name for name in both if f"{task}/{name}" in metrics]


def _gathered(task: str) -> Mapping[str, str]:
    """The keys of the samples of an evaluation, see :class:`Evaluator`. A plugin may be missing here: then those of most evaluations."""
    if task not in EVALUATORS:
        return Evaluator.gathered
    return EVALUATORS[task].gathered  # type: ignore[no-any-return]


def _data_name(cfg: RootConfig, metric: str, of_set: str, about: Mapping[str, Any] | None) -> str:
    """The name of the data of a metric, with the number of samples if it is known for this set."""
    task, about = metric.split("/")[0], about or {"data": vars(cfg.data), "overrides": [], "num_samples": {}}
    gathered = _gathered(task)
    key = gathered.get(of_set) or gathered.get("dataset") or Evaluator.gathered["dataset"]
    key = "train_shards" if of_set == "train" else key.removeprefix("data.")
    if not about["data"].get(key):  # grounding takes them where it has no shards of its own
        key = "val_shards"
    words = [word.lstrip("+") for word in about["overrides"]]
    if cfg.data.kind == DataKind.scenes and not any(word.startswith(("data=", "data.kind=", f"data.{key}=")) for word in words):
        name = ", ".join([SCENES, *(word for word in words if word.startswith("data.scenes"))])
    else:
        name = _shown(about["data"].get(key))
    counts = about["num_samples"]
    if isinstance(counts, int):  # earlier versions gave the sum of all sets
        counts = {} if "train" in gathered else {of_set: counts}
    return f"{name}, {counts[of_set]:,} samples" if of_set in counts else name


def _shown(value: Any) -> str:
    """The value as text for a cell of a table, without this machine's folders and without user names, passwords and queries of URLs."""
    text = re.sub(r"://[^/@\s]*@", "://", as_typed(_without_folders(value)))
    return re.sub(r"(://[^\s?,'\"]*)\?[^\s,'\"\]}]*", r"\1", text).replace("|", "\\|").replace("\n", " ")


def _without_folders(value: Any) -> Any:
    """The value with only the last part of each absolute path."""
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if not isinstance(value, str):
        return value
    if value.startswith("pipe:"):
        path = rf"(?<![\w/:.~*?\])}}-])(-\w+)?{_LOCAL}(/+[^/\s]\S*)"
        return "pipe:" + re.sub(path, lambda found: (found[1] or "") + _last_part(found[2]), value.removeprefix("pipe:"))
    if found := re.fullmatch(rf"(local-dir:)?{_LOCAL}(/+[^/].*)", value, re.DOTALL):
        return (found[1] or "") + _last_part(found[2])
    return re.sub(rf"(?<=[{{,]){_LOCAL}/(?:[^{{}},]*/)?", "", value) if value.startswith("{") else value


def _last_part(path: str) -> str:
    """The part after the last slash outside braces; ``~`` for a home folder."""
    if re.fullmatch(r"/(home|Users)/[^/]+/*", path):
        return "~"
    path, start, depth = path.rstrip("/"), 0, 0
    for position, character in enumerate(path, start=1):
        depth += (character == "{") - (character == "}")
        if character == "/" and depth <= 0:
            start = position
    return path[start:]
