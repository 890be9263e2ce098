"""What img2dataset leaves: ``NNNNN.tar`` (``webdataset``) or folders ``NNNNN/`` (``files``), and each URL's status in ``NNNNN.parquet``."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

from data_pipelines.files import require_folder
from data_pipelines.layout import Argument, layout
from data_pipelines.layouts.folder import Group, group_files
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError
from timix_pl.data.shards.tar_scan import IMAGE, JSON, TEXT, scan_tar

KEPT_FIELDS = ("url", "status")


@layout("img2dataset")
def read_img2dataset(folder: Annotated[Path, Argument("the output folder", "DIR")], /) -> Iterator[Row]:
    """an output folder of img2dataset (webdataset or files).

    After its rows comes one with a problem for each URL that its Parquet files report as failed.

    Raises:
        DataError: the folder is missing or holds neither tars nor images.
    """
    require_folder(folder)
    tars = sorted(folder.glob("*.tar"))
    rows = chain.from_iterable(map(_tar_rows, tars)) if tars else map(_file_row, group_files(folder))
    return chain(rows, chain.from_iterable(map(_failed_rows, sorted(folder.glob("*.parquet")))))


def _tar_rows(tar: Path) -> Iterator[Row]:
    try:
        samples, problems = scan_tar(tar)
    except DataError as error:
        yield Row(tar.name).failed("broken tar", str(error))
        return
    with tar.open("rb") as file:
        for key, sample in samples.items():
            content = {}
            for kind, (offset, size) in sample.members.items():
                file.seek(offset)
                content[kind] = file.read(size)
            yield _row(key, content[IMAGE], content.get(TEXT), content.get(JSON))
    for problem in problems:
        yield Row(tar.name).failed("incomplete sample", problem)


def _file_row(group: Group) -> Row:
    text, fields = (path.read_bytes() if path else None for path in (group.text, group.json))
    return _row(Path(group.name).name, group.image, text, fields)


def _row(key: str, image: Path | bytes | None, text: bytes | None, fields: bytes | None) -> Row:
    row = Row(key, image)
    try:
        decoded = json.loads(fields) if fields else {}
        caption = text.decode() if text is not None else decoded.get("caption") or ""
        extra = {"source": "img2dataset"} | {name: decoded[name] for name in KEPT_FIELDS if name in decoded}
    except (ValueError, AttributeError) as error:
        return row.failed("malformed side-car", str(error))
    return Row(key, image, captions=(caption,), extra=extra)


def _failed_rows(parquet: Path) -> Iterator[Row]:
    import pyarrow as pa  # late: it is slow to import, and the layouts must be quick
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(parquet) as file:
            for batch in file.iter_batches(columns=["key", "url", "status", "error_message"]):
                for entry in batch.to_pylist():
                    if entry["status"] != "success":
                        yield Row(str(entry["key"])).failed(str(entry["status"]), f"{entry['url']}: {entry['error_message']}")
    except (pa.ArrowException, OSError, KeyError) as error:
        yield Row(parquet.name).failed("unreadable Parquet file", str(error))
