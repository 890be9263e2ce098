"""Open the loggers of a run: ``metrics.csv`` always, and the chosen logger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from timix_pl.building.entries import create
from timix_pl.config.entry_options import option_keys
from timix_pl.config.schema import RootConfig
from timix_pl.config.values import plain, run_name
from timix_pl.core.choices import LOGGERS
from timix_pl.core.errors import in_keys
from timix_pl.training.csv_logger import CsvLogger
from timix_pl.training.logged_run import LoggedRun


@contextmanager
def open_loggers(cfg: RootConfig, step: int) -> Iterator[list[Logger]]:
    """Open the run's loggers. Loggers other than ``metrics.csv`` are opened only on rank 0.

    Args:
        step: the run resumes after it; 0: a new run.
    Raises:
        RunError: the logger cannot start.
    """
    run_dir = Path(cfg.run_dir)
    csv = CsvLogger(run_dir / "metrics.csv")
    csv.rewind(step)
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield [csv]
        return
    config_text = OmegaConf.to_yaml(OmegaConf.structured(cfg))
    run = LoggedRun(run_dir=run_dir, name=run_name(cfg), step=step, config=plain(cfg), config_text=config_text)
    with in_keys(option_keys(LOGGERS, cfg.logger.kind)), create(cfg, LOGGERS, cfg.logger.kind, run) as logger:
        yield [csv] if logger is None else [csv, logger]
