"""Run rows through the stages, write shards, and count what was left out."""

import json
from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from data_pipelines.rows import Problem, Row
from data_pipelines.stages import clean, load_images, take_part
from timix_pl.core.errors import DataError
from timix_pl.core.words import counted
from timix_pl.data.shards.writer import ShardWriter

SKIPPED_NAME = "skipped.jsonl"


@dataclass
class Account:
    """The number of samples written, and the counts of reasons why rows and parts of rows were left out."""

    num_samples: int = 0
    rows_left_out: Counter[str] = field(default_factory=Counter)
    parts_left_out: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The account as lines of text."""
        lines = [f"{counted(self.num_samples, 'sample')} written"]
        for what, reasons in (("image", self.rows_left_out), ("caption or region", self.parts_left_out)):
            if reasons:
                by_reason = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
                lines.append(f"{counted(reasons.total(), what)} left out: {by_reason}")
        return lines


def make_shards(
    rows: Iterable[Row],
    folder: Path,
    *,
    part: str | None = None,
    val_frac: float = 0.2,
    samples_per_shard: int = 1000,
    overwrite: bool = False,
) -> Account:
    """Clean rows, load their images and write shards. Every row or part that is left out is a line of ``FOLDER/skipped.jsonl``.

    Args:
        rows: from a layout.
        part, val_frac: as in ``stages.take_part``.
        samples_per_shard, overwrite: as in ``ShardWriter``.
    Raises:
        DataError: no row could be written, or ``ShardWriter`` failed.
    """
    total = len(rows) if isinstance(rows, Sized) else None
    progress = tqdm(rows, desc=folder.name, total=total, unit=" images", disable=None)
    return write_rows(load_images(clean(take_part(progress, part, val_frac))), folder, samples_per_shard, overwrite)


def write_rows(rows: Iterable[Row], folder: Path, samples_per_shard: int = 1000, overwrite: bool = False) -> Account:
    """The last stage: write loaded rows to shards. Arguments and errors as in ``make_shards``."""
    account = Account()
    with ShardWriter(folder, samples_per_shard=samples_per_shard, overwrite=overwrite) as writer:
        with (folder / SKIPPED_NAME).open("w", encoding="utf-8", errors="backslashreplace") as log:
            for row in rows:
                problem = row.problem or _write_row(row, writer)
                if problem:
                    account.rows_left_out[problem.reason] += 1
                    _log(log, row, problem, "image")
                    continue
                for left_out in row.left_out:
                    account.parts_left_out[left_out.reason] += 1
                    _log(log, row, left_out, "part")
        account.num_samples = writer.num_samples
        if account.num_samples == 0:
            raise DataError(f"{folder}: {', '.join(account.lines())}. The reasons, one by one, are in {folder / SKIPPED_NAME}.")
    return account


def _write_row(row: Row, writer: ShardWriter) -> Problem | None:
    assert isinstance(row.image, bytes)
    try:
        writer.write(row.key, row.image, row.image_ext, captions=row.captions, regions=row.regions, extra=row.extra)
    except DataError as error:
        return Problem("refused by the shard writer", str(error))
    return None


def _log(log: TextIO, row: Row, problem: Problem, what: str) -> None:
    fields = {"key": row.key, "left_out": what, "reason": problem.reason, "detail": problem.detail}
    log.write(json.dumps(fields, ensure_ascii=False) + "\n")
