"""Where a run's metrics go: ``metrics.csv`` always, TensorBoard or wandb beside it."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from timix_pl.config.schema import LoggerKind, RootConfig
from timix_pl.config.values import plain, run_name
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, RunError
from timix_pl.core.files import atomic_path
from timix_pl.training.csv_logger import CsvLogger

log = logging.getLogger(__name__)


@contextmanager
def open_loggers(cfg: RootConfig, step: int) -> Iterator[list[Logger]]:
    """The run's loggers, open and told the configuration; what is opened beside ``metrics.csv`` is opened on rank 0 alone.

    Args:
        step: after which the run goes on; 0 for one that begins.
    Raises:
        RunError: wandb is to upload, and nobody is logged in.
    """
    run_dir = Path(cfg.run_dir)
    csv = CsvLogger(run_dir / "metrics.csv")
    csv.rewind(step)
    if getattr(rank_zero_only, "rank", 0) != 0 or cfg.logger.kind == LoggerKind.csv:
        yield [csv]
    elif cfg.logger.kind == LoggerKind.tensorboard:
        board = TensorBoardLogger(run_dir, name="tensorboard", version="", default_hp_metric=False, purge_step=step + 1)
        board.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.structured(cfg))}```", step + 1)
        yield [csv, board]
    else:
        wandb = _open_wandb(cfg, _wandb_id(run_dir / "wandb_id", goes_on=step > 0))
        wandb.log_hyperparams(plain(cfg))
        status = 1
        try:
            yield [csv, wandb]
            status = 0
        except SystemExit as stopped:
            status = 0 if stopped.code == STATUS_OF_A_STOPPED_RUN else 1
            raise
        finally:
            wandb.experiment.finish(status)


def _wandb_id(path: Path, *, goes_on: bool) -> str:
    """A run keeps its id in its folder; one that begins has a new one, whatever was in the folder."""
    if goes_on and path.exists():
        return path.read_text().strip()
    number = secrets.token_hex(8)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{number}\n")
    return number


def _open_wandb(cfg: RootConfig, number: str) -> WandbLogger:
    """Online if asked to and the server answers."""
    from wandb.errors import AuthenticationError, CommError, UsageError

    group = cfg.logger.group
    if group is None and cfg.logger.label is not None:
        group = str(Path(cfg.run_dir).parent)

    def start(mode: str | None) -> WandbLogger:
        logger = WandbLogger(
            cfg.logger.label or run_name(cfg),
            save_dir=Path(cfg.run_dir).absolute(),  # written by a process of its own
            id=number,
            project=cfg.logger.project,
            group=group,
            resume="allow",
            mode=mode,
        )
        assert logger.experiment is not None
        return logger

    if cfg.logger.offline:
        return start("offline")
    try:
        return start(None)
    except (AuthenticationError, UsageError) as error:
        raise RunError(f"logger.offline=false: wandb refuses: {error} Run 'wandb login', or set logger.offline=true") from error
    except CommError as error:
        log.warning(
            "wandb's server does not answer (%s); this start writes offline, and 'wandb sync %s/wandb/offline-run-*' uploads it",
            " ".join(str(error).split()),
            cfg.run_dir,
        )
        return start("offline")
