"""Evaluate a checkpoint of a run, and write the results to the run's folder."""

import fcntl
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch.utils.data import Dataset

from timix_pl.building.assemble import load_model
from timix_pl.building.checkpoints import find_checkpoint
from timix_pl.building.data import prepare_data
from timix_pl.building.evaluators import build_evaluators, built_in_metric
from timix_pl.config.compose import recompose
from timix_pl.config.saved import run_dir_of
from timix_pl.config.schema import RootConfig
from timix_pl.core.errors import ConfigError
from timix_pl.core.metric import descriptions_in
from timix_pl.core.types import EvaluationResult
from timix_pl.core.words import as_typed
from timix_pl.evaluation.evaluator import EvaluationError, Evaluator, run_tasks
from timix_pl.evaluation.results import write_result
from timix_pl.reports.figures import count_text
from timix_pl.reports.page import write_report
from timix_pl.runs.ranks import joined_ranks

Value = TypeVar("Value")

FOLDER = "evaluate"
"""Sub-folder of a run's folder, for evaluations after training."""


class Evaluated(NamedTuple):
    """The results of evaluating a checkpoint.

    ``about``: for each evaluation the number of samples, the data and the overrides. ``error``: set if evaluations failed; ``result`` has
    the results of the others. ``weights``: ``last`` or ``ema``.
    """

    run_dir: Path
    checkpoint: Path
    step: int
    about: dict[str, dict[str, Any]]
    result: EvaluationResult
    error: EvaluationError | None
    weights: str = "last"

    def told(self) -> str:
        """Which weights were evaluated, on how many samples."""
        averaged = ", moving average of the weights" if self.weights == "ema" else ""
        return f"Checkpoint: {self.checkpoint}, step {self.step:,}{averaged}\n{told_samples(self.about)}"

    def write(self) -> list[str]:
        """Write the results to ``RUN_DIR/evaluate`` and update the report.

        Earlier results there of the same step are kept, unless the same evaluation was repeated. Results of another step are removed.

        Returns:
            Lines with the paths of ``evaluation.json`` and the report.
        """
        folder = self.run_dir / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / "evaluation.json"
        with (folder / ".lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # several evaluations of one run may write at the same time
            before = _of_step(path, self.step)
            kept = {name: about for name, about in before.get("evaluations", {}).items() if name not in self.about}
            result = EvaluationResult(
                _of(kept, before.get("metrics", {})) | self.result.metrics,
                _of(kept, before.get("chance", {})) | self.result.chance,
                self.result.examples,
                _of(kept, descriptions_in(before, built_in_metric)) | dict(self.result.descriptions),
            )
            write_result(folder, result, step=self.step, checkpoint=self.checkpoint.name, evaluations=kept | self.about)
        return [f"Results: {path}", f"Report: {write_report(self.run_dir, built_in_metric)}"]


class EvaluatedModel(NamedTuple):
    """Like ``Evaluated``, for a model that timix-pl did not train. ``out``: folder for the results; None: they are not written."""

    model: str
    weights: str
    out: Path | None
    about: dict[str, dict[str, Any]]
    result: EvaluationResult
    error: EvaluationError | None

    def told(self) -> str:
        """Which weights were evaluated, on how many samples."""
        return f"Model: {self.model}{f', weights {self.weights}' if self.weights else ''}\n{told_samples(self.about)}"

    def write(self) -> list[str]:
        """Write ``evaluation.json`` and examples to ``out``.

        Returns:
            A line with the path; none if ``out`` is None.
        """
        if self.out is None:
            return []
        self.out.mkdir(parents=True, exist_ok=True)
        write_result(self.out, self.result, model=self.model, weights=self.weights, evaluations=self.about)
        return [f"Results: {self.out / 'evaluation.json'}"]


def told_samples(about: dict[str, dict[str, Any]]) -> str:
    """A line with the number of samples of each evaluation."""
    counts = ", ".join(f"{name} {count_text(of['num_samples'])}" for name, of in about.items())
    return f"Samples: {counts or 'none, no evaluation has what it needs'}"


def _of(evaluations: Collection[str], values: Mapping[str, Value]) -> dict[str, Value]:
    """The values whose metrics belong to these evaluations."""
    return {name: value for name, value in values.items() if name.split("/")[0] in evaluations}


def _of_step(path: Path, step: int) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if content["step"] == step else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def forget_evaluations(run_dir: Path) -> None:
    """Remove the results in a run's folder, because they belong to the weights of an earlier run."""
    (run_dir / "evaluation.json").unlink(missing_ok=True)
    for folder in ("examples", FOLDER):
        shutil.rmtree(run_dir / folder, ignore_errors=True)


def about_evaluations(evaluators: Sequence[Evaluator], cfg: RootConfig, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each evaluation: the number of samples (per set, if it has several), the locations of all data, and the overrides."""
    shards = {name: value for name, value in vars(cfg.data).items() if name.endswith("_shards") and isinstance(value, str | list)}
    given = [word for word in overrides if not word.startswith("evaluation.tasks=")]
    about = {}
    for evaluator in evaluators:
        sizes = {name: len(part) for name, part in vars(evaluator).items() if isinstance(part, Dataset)}  # type: ignore[arg-type]
        about[evaluator.choice] = {"num_samples": sizes.get("dataset", sizes), "data": shards, "overrides": given}
    return about


def evaluate(checkpoint: Path, overrides: Sequence[str] = ()) -> Evaluated:
    """Evaluate a checkpoint with its run's configuration, on all ranks that were started together.

    Args:
        checkpoint: a run directory (for its newest checkpoint), or a checkpoint inside one.
        overrides: of the run's configuration, as on the command line.
    Raises:
        RunError: there is no checkpoint.
        ConfigError: wrong overrides, or no evaluation can run.
    """
    cfg, path = read_run(checkpoint, overrides)
    prepare_data(cfg)
    model, step = load_model(cfg, path)
    problems: dict[str, str] = {}
    with joined_ranks(cfg, path) as device:
        evaluators = build_evaluators(cfg, model, problems)
        if not evaluators and not problems:
            raise ConfigError(
                [f"evaluation.tasks={as_typed(cfg.evaluation.tasks)}: none of them can run; set the missing data, or choose others"]
            )
        try:
            result = run_tasks(evaluators, model.to(device), device)
        except EvaluationError as raised:
            result, problems = raised.result, problems | raised.problems
    error = EvaluationError(problems, result) if problems else None
    done = [evaluator for evaluator in evaluators if evaluator.choice not in problems]
    about = about_evaluations(done, cfg, overrides)
    return Evaluated(path.parent.parent, path, step, about, result, error, cfg.evaluation.weights)


def read_run(checkpoint: Path, overrides: Sequence[str] = ()) -> tuple[RootConfig, Path]:
    """The configuration of a run, and its checkpoint: the one named, or the newest complete one of a run directory.

    Raises:
        RunError: there is no configuration or no checkpoint.
        ConfigError: wrong overrides.
    """
    return recompose(run_dir_of(checkpoint) / "config.yaml", overrides), find_checkpoint(checkpoint)
