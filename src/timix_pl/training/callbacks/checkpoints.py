"""Save checkpoints by steps, by time, for the best metric, and after the last step."""

import logging
import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from timix_pl.core.distributed import gather_objects
from timix_pl.core.errors import RunError, StoppedBySignal
from timix_pl.core.files import atomic_path
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.checkpoint_io import plain_values, remove
from timix_pl.training.step_module import StepModule

log = logging.getLogger(__name__)


def step_checkpoints(folder: Path) -> list[Path]:
    """The step checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


class CheckpointsCallback(Checkpoint):
    """Writes ``step-00001000.ckpt`` every n steps, every m minutes, after the last step and on a stop signal; keeps the newest ones.

    Also writes ``best.ckpt``, and ``last.ckpt`` as a link to the newest checkpoint.

    Lightning's ModelCheckpoint is not used, because it only monitors metrics of Lightning's validation loop, which does not run here.

    Args:
        folder: for the checkpoints.
        every_n_steps, every_n_minutes: intervals; None: do not save by that interval.
        keep_last: number of step checkpoints that are kept.
        evaluation: gives the metric ``monitor``; None: no ``best.ckpt``.
        monitor: the metric of ``best.ckpt``; None: no ``best.ckpt``.
        mode: ``max`` or ``min``.
    Raises:
        StoppedBySignal: a signal stopped the run, and a checkpoint of its last step was saved.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_n_steps: int | None,
        every_n_minutes: float | None,
        keep_last: int,
        evaluation: EvaluationCallback | None = None,
        monitor: str | None = None,
        mode: str = "max",
    ):
        self.folder, self.every_n_steps, self.every_n_minutes, self.keep_last = folder, every_n_steps, every_n_minutes, keep_last
        self.evaluation, self.monitor, self.sign = evaluation, monitor, 1 if mode == "max" else -1
        self.best = -math.inf
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks, each of which looked for the newest checkpoint, found the same one."""
        assert isinstance(pl_module, StepModule)
        steps = gather_objects(pl_module.global_step)
        if len(set(steps)) > 1:
            raise RunError(
                f"the ranks went on from different checkpoints of {self.folder}, after steps {', '.join(map(str, sorted(set(steps))))}: "
                "the file system shows them different files. Start again, or name one with resume="
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save the checkpoints that are due. Lightning runs checkpoint callbacks last, so the evaluation of this step is finished.

        ``best.ckpt`` comes first, because the step's checkpoint stores the best value.
        """
        assert isinstance(pl_module, StepModule)
        step = pl_module.global_step
        if self.evaluation is not None and self.evaluation.result_step == step:
            self._save_best(trainer, self.evaluation.result.metrics)
        last = step == trainer.max_steps
        due = self.every_n_steps and step % self.every_n_steps == 0
        if last or due or pl_module.all_stop or (pl_module.logs_now() and self._time_is_up()):
            self._saved_at = time.monotonic()
            trainer.save_checkpoint(self.folder / f"step-{step:08d}.ckpt", weights_only=False)
            if trainer.is_global_zero:
                with atomic_path(self.folder / "last.ckpt") as temporary:
                    temporary.symlink_to(f"step-{step:08d}.ckpt")
                for old in step_checkpoints(self.folder)[: -self.keep_last]:
                    remove(old)
        if pl_module.all_stop and not last:
            raise StoppedBySignal(step)

    def _time_is_up(self) -> bool:
        """Whether to save by time. Only called in logged steps, because the ranks must communicate to agree."""
        if not self.every_n_minutes:
            return False
        return any(gather_objects(time.monotonic() - self._saved_at > self.every_n_minutes * 60))

    def _save_best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self.monitor is None:
            return
        if self.monitor not in metrics:
            log.warning("monitor=%s is not among the metrics, so best.ckpt is not updated: %s", self.monitor, ", ".join(metrics))
            return
        if self.sign * metrics[self.monitor] > self.best:
            self.best = self.sign * metrics[self.monitor]
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, with its metric and direction."""
        return {"best": self.best, "monitor": self.monitor, "sign": self.sign}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, unless it belongs to another metric or direction."""
        # checkpoints of earlier versions do not store the metric and direction
        if state_dict.get("monitor", self.monitor) == self.monitor and state_dict.get("sign", self.sign) == self.sign:
            self.best = state_dict["best"]


def newest_whole_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest step checkpoint that is complete, and the damaged ones after it."""
    broken = []
    for path in reversed(step_checkpoints(folder)):
        try:
            plain_values(path)
        except RunError:
            broken.append(path)
        else:
            return path, broken
    return None, broken
