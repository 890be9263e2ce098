"""Read ``metrics.csv`` as curves."""

import csv
import math
from pathlib import Path

Points = list[tuple[float, float]]
"""(step, value) pairs by increasing step."""


def read_history(path: Path) -> dict[str, Points]:
    """Read the metrics of a run, one curve per column.

    Empty cells were not measured at that step. The header may be repeated with more columns. A last line without a newline was truncated by
    a kill and is ignored. Of rows with the same step, which a resumed run may write, the last one counts.

    Args:
        path: the file; if it does not exist, there are no curves.
    Returns:
        Finite values by column name, in the order of the columns, without ``step`` and empty columns.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    whole_lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    columns: list[str] = []
    curves: dict[str, dict[float, float]] = {}
    for row in csv.reader(whole_lines):
        if "step" in row:
            columns = row
            for name in columns:
                curves.setdefault(name, {})
            continue
        values = {name: value for name, cell in zip(columns, row, strict=False) if (value := _finite(cell)) is not None}
        step = values.pop("step", None)
        if step is not None:
            for name, value in values.items():
                curves[name][step] = value
    return {name: sorted(curve.items()) for name, curve in curves.items() if curve}


def _finite(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
