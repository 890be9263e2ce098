"""Compare several runs: the settings that differ, and the final results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timix_pl.core.metric import Metric
from timix_pl.reports.header import facts
from timix_pl.reports.page import write_page
from timix_pl.reports.run import Run, read_run, undescribed


@dataclass(frozen=True)
class Row:
    """One row of a table, with a cell per run; empty if the run has no such value. ``best`` marks the best ones."""

    label: str
    cells: list[str]
    best: list[bool]


def write_comparison(run_dirs: Sequence[Path], path: Path, known: Callable[[str], Metric | None] = undescribed) -> Path:
    """Write a page with the configuration keys that differ between runs, and their final results.

    Args:
        known: see ``read_run``.
    Raises:
        RunError: one of ``run_dirs`` does not exist or is not a run directory.
    """
    runs = [read_run(run_dir, known) for run_dir in run_dirs]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.run_dir) for run in runs]
    return write_page(
        path, "comparison.html", names=names, settings=differing_settings(runs), figures=final_figures(runs), running=how_they_ran(runs)
    )


def differing_settings(runs: Sequence[Run]) -> list[Row]:
    """Dotted configuration keys with different values in the runs, without the name and the folder of a run."""
    flat = [_flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for config in flat for key in config if key not in ("name", "run_dir"))
    values = {key: [str(config.get(key, "")) for config in flat] for key in keys}
    return [Row(key, cells, [False] * len(runs)) for key, cells in values.items() if len(set(cells)) > 1]


def final_figures(runs: Sequence[Run]) -> list[Row]:
    """A row for each metric that any run has. The best values are marked if the runs differ and one direction is better."""
    by_run = [{figure.name: figure for figure in run.figures} for run in runs]
    rows = []
    for name in dict.fromkeys(name for figures in by_run for name in figures):
        of_runs = [figures.get(name) for figures in by_run]
        present = [figure for figure in of_runs if figure is not None]
        values = {figure.value for figure in present}
        higher_is_better = next((better for figure in present if (better := figure.metric.higher_is_better) is not None), None)
        best = max(values) if higher_is_better else min(values)
        marked = len(values) > 1 and higher_is_better is not None
        cells = ["" if figure is None else figure.value_text for figure in of_runs]
        rows.append(Row(name, cells, [marked and figure is not None and figure.value == best for figure in of_runs]))
    return rows


def how_they_ran(runs: Sequence[Run]) -> list[Row]:
    """Steps, time, throughput and memory of each run."""
    known = [dict(facts(run)) for run in runs]
    labels = ("Steps", "Time", "Throughput", "Model FLOPs utilisation", "Peak memory")
    rows = [Row(label, [of_run.get(label, "") for of_run in known], [False] * len(runs)) for label in labels]
    return [row for row in rows if any(row.cells)]


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
