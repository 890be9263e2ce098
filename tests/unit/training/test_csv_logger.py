"""metrics.csv: what a spreadsheet reads of it, whatever happened to the run."""

import csv

import pytest

from timix_pl.training.csv_logger import CsvLogger


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def test_rows_hold_what_was_measured_and_new_columns_may_come(path):
    logger = CsvLogger(path)
    logger.log_metrics({"consumed": 8, "loss": 0.5}, step=1)
    logger.log_metrics({"consumed": 16, "loss": 0.25, "retrieval": 0.75}, step=2)
    logger.log_metrics({"consumed": 24, "loss": 0.125}, step=3)
    rows = read(path)
    assert list(rows[0]) == ["step", "consumed", "loss", "retrieval"]
    assert [row["loss"] for row in rows] == ["0.5", "0.25", "0.125"]
    assert [row["retrieval"] for row in rows] == ["", "0.75", ""]
    assert [row["step"] for row in rows] == ["1", "2", "3"]


def test_a_run_that_goes_on_appends(path):
    CsvLogger(path).log_metrics({"loss": 0.5}, step=1)
    logger = CsvLogger(path)
    logger.rewind(1)
    logger.log_metrics({"loss": 0.25, "new": 1.0}, step=2)
    assert read(path) == [{"step": "1", "loss": "0.5", "new": ""}, {"step": "2", "loss": "0.25", "new": "1.0"}]


def test_rows_after_the_checkpoint_are_dropped(path):
    logger = CsvLogger(path)
    for step in range(1, 6):
        logger.log_metrics({"loss": 1 / step}, step=step)
    again = CsvLogger(path)
    again.rewind(3)
    again.log_metrics({"loss": 9.0}, step=4)
    assert [(row["step"], row["loss"]) for row in read(path)][2:] == [("3", str(1 / 3)), ("4", "9.0")]


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_line_that_a_kill_cut_off_is_dropped(path, cut):
    """Wherever it was cut, also inside its last number."""
    logger = CsvLogger(path)
    logger.log_metrics({"consumed": 8, "loss": 0.123456}, step=1)
    logger.log_metrics({"consumed": 16, "loss": 0.654321}, step=2)
    whole = path.read_bytes()
    last_line = whole.splitlines(keepends=True)[-1]
    if cut >= len(last_line):
        pytest.skip("longer than the line")
    path.write_bytes(whole[: len(whole) - cut])
    again = CsvLogger(path)
    again.rewind(2)
    assert read(path) in (
        [{"step": "1", "consumed": "8", "loss": "0.123456"}],
        [{"step": "1", "consumed": "8", "loss": "0.123456"}, {"step": "2", "consumed": "16", "loss": "0.654321"}],
    )
    again.log_metrics({"consumed": 24, "loss": 0.5}, step=3)
    assert read(path)[-1] == {"step": "3", "consumed": "24", "loss": "0.5"}


def test_rewinding_where_there_is_nothing_is_fine(path):
    logger = CsvLogger(path)
    logger.rewind(0)
    logger.log_metrics({"loss": 0.5}, step=1)
    assert read(path) == [{"step": "1", "loss": "0.5"}]
