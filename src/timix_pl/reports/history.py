"""``metrics.csv`` as curves."""

import csv
import math
from pathlib import Path

Points = list[tuple[float, float]]
"""(step, value) pairs by increasing step."""


def read_history(path: Path) -> dict[str, Points]:
    """Read what a run measured, one curve per column.

    Rows are sparse: an empty cell was not measured at that step. A header line may come again with more columns. A line without its
    newline was cut off by a kill and is dropped; of rows with the same step, which a resumed run leaves, the later one counts.

    Args:
        path: the file; a missing one gives no curves.
    Returns:
        Finite values by column name, in the order of the columns, without ``step`` and columns that never have a value.
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
