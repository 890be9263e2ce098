"""Weights & Biases, offline by default."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

from timix_pl.core.choices import LOGGERS
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, RunError
from timix_pl.core.files import atomic_path
from timix_pl.training.logged_run import LoggedRun

log = logging.getLogger(__name__)


@LOGGERS.register("wandb")
@contextmanager
def wandb(
    run: LoggedRun, *, project: str = "timix-pl", offline: bool = True, label: str | None = None, group: str | None = None
) -> Iterator[WandbLogger]:
    """Log to Weights & Biases. A resumed run keeps its id, which is stored in ``RUN_DIR/wandb_id``.

    Args:
        project: wandb's project.
        offline: write locally; ``wandb sync`` uploads the run.
        label: the run's name in wandb; None: the run's name.
        group: the run's group in wandb; None: the folder above the run's, if there is a label.
    Raises:
        RunError: ``offline`` is False and nobody is logged in.
    """
    if group is None and label is not None:
        group = str(run.run_dir.parent)
    logger = _start(run, project=project, offline=offline, label=label, group=group)
    logger.log_hyperparams(run.config)
    status = 1
    try:
        yield logger
        status = 0
    except SystemExit as stopped:
        status = 0 if stopped.code == STATUS_OF_A_STOPPED_RUN else 1
        raise
    finally:
        logger.experiment.finish(status)


def _start(run: LoggedRun, *, project: str, offline: bool, label: str | None, group: str | None) -> WandbLogger:
    """Start wandb: online if ``offline`` is False and the server answers, else offline."""
    from wandb.errors import AuthenticationError, CommError, UsageError

    number = _id(run.run_dir / "wandb_id", goes_on=run.step > 0)

    def start(mode: str | None) -> WandbLogger:
        logger = WandbLogger(
            label or run.name,
            save_dir=run.run_dir.absolute(),  # absolute, because wandb writes from another process
            id=number,
            project=project,
            group=group,
            resume="allow",
            mode=mode,
        )
        assert logger.experiment is not None
        return logger

    if offline:
        return start("offline")
    try:
        return start(None)
    except (AuthenticationError, UsageError) as error:
        raise RunError(f"`offline=False`: wandb refuses: {error} Run 'wandb login', or set `offline=True`") from error
    except CommError as error:
        log.warning(
            "wandb's server does not answer (%s); this start writes offline, and 'wandb sync %s/wandb/offline-run-*' uploads it",
            " ".join(str(error).split()),
            run.run_dir,
        )
        return start("offline")


def _id(path: Path, *, goes_on: bool) -> str:
    """The run's id, from its folder if the run is resumed, else a new one."""
    if goes_on and path.exists():
        return path.read_text().strip()
    number = secrets.token_hex(8)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{number}\n")
    return number
