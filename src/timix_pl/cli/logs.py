"""What commands say while they work."""

import logging


def show_logs() -> None:
    """Show timix-pl's own messages, and the warnings of everything else. A sweep has shown them already, through Hydra."""
    logging.basicConfig(format="%(message)s")
    for package in ("timix_pl", "data_pipelines"):
        logging.getLogger(package).setLevel(logging.INFO)
