"""Read a run directory. The run may be unfinished, killed, or without pictures."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from timix_pl.core.errors import RunError
from timix_pl.core.metric import Metric, describe, descriptions_in
from timix_pl.reports.columns import TRAINING_COLUMNS
from timix_pl.reports.examples import Examples, read_examples
from timix_pl.reports.figures import Figure, count_text, figures, words
from timix_pl.reports.history import Points, read_history
from timix_pl.reports.pictures import Picture, heat_uri, picture

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of the image's width and height."""

_RUN_FILES = ("config.yaml", "metrics.csv", "summary.json")
_Shown = TypeVar("_Shown")


@dataclass(frozen=True)
class MixedPair:
    """One mixed image with its two sources; no windows if whole images were blended."""

    clean: Picture
    source: Picture
    mixed: Picture
    caption: str
    partner_caption: str
    lam: float
    target_xyxy_norm: Box | None
    source_xyxy_norm: Box | None
    step: int


@dataclass(frozen=True)
class HeatMap:
    """PTA scores of one phrase over one image. ``peak_xy_norm``: the centre of the patch with the highest score."""

    image: Picture
    heat_uri: str
    lowest: float
    highest: float
    peak_xy_norm: tuple[float, float]
    phrase: str
    box_xyxy_norm: Box
    hit: bool
    step: int


@dataclass(frozen=True)
class Afterwards:
    """The results of ``timix-evaluate`` on one checkpoint. ``about``: the data of each evaluation."""

    checkpoint: str
    step: int
    figures: list[Figure]
    about: list[str]


@dataclass(frozen=True)
class Run:
    """The content of a run directory. ``notes``: messages about files that could not be read."""

    run_dir: Path
    written_at_s: float
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Points] = field(default_factory=dict)
    columns: dict[str, Metric] = field(default_factory=dict)
    """The descriptions of ``history``."""
    figures: list[Figure] = field(default_factory=list)
    evaluated_at_step: int | None = None
    afterwards: Afterwards | None = None
    examples: list[Examples] = field(default_factory=list)
    mixed: list[MixedPair] = field(default_factory=list)
    heat_maps: list[HeatMap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The configured name, or the folder's name if that is the default; without a configuration, the name in the summary."""
        configured = str(self.config.get("name") or self.summary.get("name", "run"))
        return self.run_dir.resolve().name if configured == "run" else configured

    @property
    def is_task(self) -> bool:
        """Whether the run is fine-tuning, not pre-training."""
        return self.setting("task") not in (None, "pretrain")

    @property
    def counts(self) -> dict[str, Any]:
        """The summary of a run that has ended; empty for a running one, whose curves are newer."""
        return {} if self.summary.get("status") == "running" else self.summary

    @property
    def last_step(self) -> int:
        logged = max((points[-1][0] for points in self.history.values()), default=0)
        return max(self.counts.get("steps", 0), int(logged))

    def setting(self, key: str) -> Any:
        """The value of a dotted configuration key; None if the configuration does not have it."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def undescribed(name: str) -> None:
    """No description for any metric."""


def read_run(run_dir: Path, known: Callable[[str], Metric | None] = undescribed) -> Run:
    """Read a run directory.

    Args:
        known: gives the description of a metric by name, or None. It is used for metrics that the run's files do not describe, such as
            those of earlier versions.
    Raises:
        RunError: ``run_dir`` does not exist or is not a run directory.
    """
    present = [run_dir / name for name in _RUN_FILES if (run_dir / name).is_file()]
    if not present:
        raise RunError(_no_run(run_dir))
    notes: list[str] = []
    evaluation = _read(run_dir / "evaluation.json", json.loads, notes)
    final = figures(evaluation.get("metrics", {}), evaluation.get("chance", {}), descriptions_in(evaluation, known))
    afterwards = _afterwards(_read(run_dir / "evaluate/evaluation.json", json.loads, notes), known, notes)
    evaluated = [*(afterwards.figures if afterwards else []), *final]
    described = {figure.name: figure.metric for figure in evaluated}
    history = read_history(run_dir / "metrics.csv")
    config_path = run_dir / "config.yaml"
    return Run(
        run_dir=run_dir,
        written_at_s=max(path.stat().st_mtime for path in present),
        config=_read(config_path, yaml.safe_load, notes),
        config_text=config_path.read_text(encoding="utf-8", errors="replace") if config_path.is_file() else "",
        summary=_read(run_dir / "summary.json", json.loads, notes),
        history=history,
        columns={name: described.get(name) or describe(TRAINING_COLUMNS, name) or known(name) or Metric() for name in history},
        figures=final,
        evaluated_at_step=evaluation.get("step"),
        afterwards=afterwards,
        examples=_examples(run_dir, evaluation.get("step"), afterwards, _evaluations(evaluated), notes),
        mixed=_pictures(run_dir / "pictures/mixed.json", _mixed_pair, notes),
        heat_maps=_pictures(run_dir / "pictures/heat_maps.json", _heat_map, notes),
        notes=notes,
    )


def _afterwards(content: dict[str, Any], known: Callable[[str], Metric | None], notes: list[str]) -> Afterwards | None:
    if not content:
        return None
    try:
        found = figures(content["metrics"], content["chance"], descriptions_in(content, known))
        titles = _evaluations(found)
        about = [
            " ".join([f"{titles.get(name, words(name))}: {count_text(of['num_samples'])} samples", *of["overrides"]])
            for name, of in content["evaluations"].items()
        ]
        return Afterwards(content["checkpoint"], content["step"], found, about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"evaluate/evaluation.json is left out: {type(error).__name__}: {error}.")
        return None


def _evaluations(figures: Iterable[Figure]) -> dict[str, str]:
    """The title of each evaluation, by its name."""
    return {figure.name.split("/")[0]: figure.evaluation for figure in figures}


def _examples(run_dir: Path, step: int | None, afterwards: Afterwards | None, titles: dict[str, str], notes: list[str]) -> list[Examples]:
    """The examples from training and from ``timix-evaluate``, by name. Equal examples are shown once."""
    trained = read_examples(run_dir / "examples", "during training" if step is None else f"at step {step:,} of training", titles, notes)
    later = read_examples(run_dir / "evaluate/examples", f"afterwards, {afterwards.checkpoint}", titles, notes) if afterwards else {}
    shown = []
    for name in sorted(trained.keys() | later.keys()):
        texts = [found[name] for found in (trained, later) if name in found]
        shown += [examples for text, examples in texts[: 1 if len(texts) == 2 and texts[0][0] == texts[1][0] else None]]
    return shown


def _no_run(run_dir: Path) -> str:
    if not run_dir.is_dir():
        nearest = next(parent for parent in run_dir.absolute().parents if parent.is_dir())
        return f"run_dir '{run_dir}' is no folder. Give the one that timix-train named when it started; '{nearest}' is there."
    below = sorted({path.parent for name in _RUN_FILES for path in run_dir.glob(f"*/{name}")})
    way_out = f"Runs below it: {', '.join(map(str, below))}." if below else "Give the folder that timix-train named when it started."
    return f"run_dir '{run_dir}' holds no run: none of {', '.join(_RUN_FILES)} is in it. {way_out}"


def _read(path: Path, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    """A mapping from a JSON or YAML file; {} if it is missing, or unreadable (with a note)."""
    if not path.is_file():
        return {}
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        notes.append(f"{path.name} could not be read ({str(error).splitlines()[0]}); what it holds is left out.")
        return {}
    return content if isinstance(content, dict) else {}


def _pictures(path: Path, show: Callable[[Path, dict[str, Any]], _Shown], notes: list[str]) -> list[_Shown]:
    """The entries of a pictures file that can be shown, and a note for each that cannot."""
    if not path.is_file():
        return []
    shown = []
    try:
        entries = list(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        notes.append(f"pictures/{path.name} could not be read ({error}); its pictures are left out.")
        return []
    for position, entry in enumerate(entries):
        try:
            shown.append(show(path.parent, entry))
        except (OSError, KeyError, TypeError, ValueError) as error:
            notes.append(f"pictures/{path.name}, entry {position} is left out: {type(error).__name__}: {error}.")
    return shown


def _mixed_pair(folder: Path, entry: dict[str, Any]) -> MixedPair:
    return MixedPair(
        clean=picture(folder / entry["clean"]),
        source=picture(folder / entry["source"]),
        mixed=picture(folder / entry["mixed"]),
        caption=entry["caption"],
        partner_caption=entry["partner_caption"],
        lam=float(entry["lam"]),
        target_xyxy_norm=_box(entry["target_xyxy_norm"]),
        source_xyxy_norm=_box(entry["source_xyxy_norm"]),
        step=entry["step"],
    )


def _heat_map(folder: Path, entry: dict[str, Any]) -> HeatMap:
    scores = np.asarray(entry["scores"], dtype=float)
    (num_rows, num_columns), peak = scores.shape, int(scores.argmax())
    box = _box(entry["box_xyxy_norm"])
    if box is None:
        raise ValueError("box_xyxy_norm is null")
    return HeatMap(
        image=picture(folder / entry["image"]),
        heat_uri=heat_uri(scores),
        lowest=float(scores.min()),
        highest=float(scores.max()),
        peak_xy_norm=((peak % num_columns + 0.5) / num_columns, (peak // num_columns + 0.5) / num_rows),
        phrase=entry["phrase"],
        box_xyxy_norm=box,
        hit=entry["hit"],
        step=entry["step"],
    )


def _box(value: Any) -> Box | None:
    if value is None:
        return None
    x0, y0, x1, y1 = map(float, value)
    return x0, y0, x1, y1
