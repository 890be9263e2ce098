"""``metrics.csv``: one row per logged step. A resumed run appends to it."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from timix_pl.core.files import atomic_path


class CsvLogger(Logger):
    """Writes rows of step, consumed and metrics; a cell is empty if the step did not measure the metric.

    Unlike Lightning's CSVLogger, it keeps the file when a run is resumed, and accepts metrics that appear later.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because ``config.yaml`` is in the same folder."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Remove the rows after ``step``, from where the run resumes, and a truncated last line."""
        rows = [row for row in self._read() if row["step"].isdigit() and int(row["step"]) <= step]
        self._write(rows)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; new names become new columns."""
        row = {"step": step} | metrics
        if new := [name for name in row if name not in self._columns]:
            rows = self._read()
            self._columns += [name for name in new if name not in self._columns]
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        whole_lines = self.path.read_text().rpartition("\n")[0]
        reader = csv.DictReader(whole_lines.splitlines())
        rows = list(reader)
        self._columns = list(reader.fieldnames or []) + [name for name in self._columns if name not in (reader.fieldnames or [])]
        return rows

    def _write(self, rows: list[dict[str, str]]) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
