"""Tables of local image paths and captions, as Conceptual Captions and its like are after the download: TSV, CSV or Parquet."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from data_pipelines.layout import Argument, layout
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError


class _UnquotedTabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE


@dataclass(frozen=True)
class TableForm:
    """How to read a table.

    Attributes:
        image_column, caption_column: names, or numbers from 0 where there is no header.
        header: the first line of a TSV or CSV names the columns.
        quoted: a TSV quotes fields as CSV does; Conceptual Captions does not.
    """

    image_column: str
    caption_column: str
    header: bool
    quoted: bool


@layout("table")
def read_table(
    tables: Annotated[list[Path], Argument(".tsv, .csv or .parquet", "TABLE")],
    /,
    image_column: Annotated[str, Argument("column of image paths (default: filepath)", "NAME")] = "filepath",
    caption_column: Annotated[str, Argument("column of captions (default: title)", "NAME")] = "title",
    images: Annotated[Path | None, Argument("where relative paths start (default: the table's folder)", "DIR")] = None,
    header: Annotated[bool, Argument("the table has no line of names; columns are numbers from 0")] = True,
    quoted: Annotated[bool, Argument("fields of a .tsv may be in double quotes, as pandas writes them")] = False,
) -> Iterator[Row]:
    """a TSV, CSV or Parquet table of image paths and captions.

    A row for each line; the key is the line's number over all tables, without headers.

    Raises:
        DataError: a table is missing, of another kind, or lacks a column.
    """
    form = TableForm(image_column, caption_column, header, quoted)
    for table in tables:
        next(_pairs(table, form), None)  # refuses what cannot be read before anything is written
    return _rows(tables, form, images)


def _rows(tables: Sequence[Path], form: TableForm, images: Path | None) -> Iterator[Row]:
    number = 0
    for table in tables:
        for image, caption in _pairs(table, form):
            path = (images or table.parent) / image if image else None
            yield Row(f"{number:09d}", path, captions=(caption,), extra={"source": table.name, "file_name": image}, group=str(path))
            number += 1


def _pairs(table: Path, form: TableForm) -> Iterator[tuple[str, str]]:
    """(image path, caption) of each line; an absent one is empty."""
    kind = table.suffix.lower()
    if kind not in (".tsv", ".csv", ".parquet"):
        raise DataError(f"{table}: a table must be .tsv, .csv or .parquet.")
    try:
        yield from _parquet_pairs(table, form) if kind == ".parquet" else _text_pairs(table, form, tabs=kind == ".tsv")
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read ({error}).") from error


def _text_pairs(table: Path, form: TableForm, tabs: bool) -> Iterator[tuple[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        dialect = (csv.excel_tab if form.quoted else _UnquotedTabs) if tabs else csv.excel
        lines = csv.reader(file, dialect)
        first = next(lines, [])
        names = first if form.header else [str(i) for i in range(len(first))]
        columns = _find_columns(table, names, form)
        if not form.header:
            yield _pick(first, columns)
        for line in lines:
            if line:
                yield _pick(line, columns)


def _pick(line: list[str], columns: list[int]) -> tuple[str, str]:
    image, caption = (line[i] if i < len(line) else "" for i in columns)
    return image, caption


def _parquet_pairs(table: Path, form: TableForm) -> Iterator[tuple[str, str]]:
    import pyarrow as pa  # late: it is slow to import, and the layouts must be quick
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            _find_columns(table, file.schema_arrow.names, form)
            for batch in file.iter_batches(columns=[form.image_column, form.caption_column]):
                for image, caption in zip(batch[form.image_column], batch[form.caption_column], strict=True):
                    yield str(image.as_py() or ""), str(caption.as_py() or "")
    except pa.ArrowException as error:
        raise DataError(f"{table}: cannot be read ({error}).") from error


def _find_columns(table: Path, names: Sequence[str], form: TableForm) -> list[int]:
    for name in (form.image_column, form.caption_column):
        if name not in names:
            raise DataError(f"{table}: no column {name!r}. Choose among: {', '.join(names[:20])}.")
    return [names.index(form.image_column), names.index(form.caption_column)]
