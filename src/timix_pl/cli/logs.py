"""What commands say while they work."""

import logging
import sys

from tqdm import tqdm


class _Stderr(logging.StreamHandler):
    """Writes to what ``sys.stderr`` is at the time, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


def show_logs() -> None:
    """Show timix-pl's own messages, and the warnings of everything else."""
    logging.basicConfig(format="%(message)s", handlers=[_Stderr()])
    for package in ("timix_pl", "data_pipelines"):
        logging.getLogger(package).setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
