"""TensorBoard, in ``RUN_DIR/tensorboard``."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.loggers import TensorBoardLogger

from timix_pl.core.choices import LOGGERS
from timix_pl.training.logged_run import LoggedRun


@LOGGERS.register("tensorboard")
@contextmanager
def tensorboard(run: LoggedRun) -> Iterator[TensorBoardLogger]:
    """Log to ``RUN_DIR/tensorboard``. In a resumed run, each step appears only once."""
    board = TensorBoardLogger(run.run_dir, name="tensorboard", version="", default_hp_metric=False, purge_step=run.step + 1)
    board.experiment.add_text("config", f"```yaml\n{run.config_text}```", run.step + 1)
    yield board
