"""The messages that commands print while they run."""

import logging
import sys

from tqdm import tqdm


class _Stderr(logging.StreamHandler):
    """Writes to the current ``sys.stderr``, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


def show_logs() -> None:
    """Show info messages of timix-pl, and warnings of all other packages."""
    logging.basicConfig(format="%(message)s", handlers=[_Stderr()])
    for package in ("timix_pl", "data_pipelines"):
        logging.getLogger(package).setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
