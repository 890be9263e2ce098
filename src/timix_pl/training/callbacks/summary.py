"""Write ``summary.json`` (what the run is, and its state), and the run's row in the tables of wandb and TensorBoard."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from timix_pl.core.files import atomic_path
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.step_module import StepModule


class SummaryCallback(Callback):
    """Writes status, steps, time and throughput in every logged step and at the end. The time includes earlier starts of the run.

    Args:
        path: of ``summary.json``.
        facts: values that are known at the start: name, number of training samples.
        config: the configuration, for TensorBoard's table of runs.
        evaluation: its last metrics go to that table too.
    """

    def __init__(self, path: Path, facts: dict[str, Any], *, config: dict[str, Any], evaluation: EvaluationCallback):
        self.path, self.facts, self.config, self.evaluation = path, facts, config, evaluation
        self._earlier_wall_s = self._started_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        assert isinstance(pl_module, StepModule)
        self.facts["num_parameters"] = {name: sum(p.numel() for p in part.parameters()) for name, part in pl_module.model.parts().items()}
        self._started_s = time.time()
        self._write("running", trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write the status "running" in logged steps."""
        assert isinstance(pl_module, StepModule)
        if pl_module.logs_now():
            self._write("running", trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final status, unless the run was interrupted."""
        if trainer.interrupted:
            return
        self._write("finished", trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.config, self.evaluation.result.metrics, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the status of a run that an error, a signal or Ctrl-C stopped."""
        self._write("interrupted", trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"wall_s": self._wall_s()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the seconds of earlier starts."""
        self._earlier_wall_s = state_dict["wall_s"]

    def _wall_s(self) -> float:
        return self._earlier_wall_s + (time.time() - self._started_s if self._started_s else 0.0)

    def _write(self, status: str, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self._started_s:
            return
        assert isinstance(module, StepModule)
        wall_s = self._wall_s()
        progress = {"steps": module.global_step, "consumed": module.consumed, "wall_s": wall_s}
        summary = self.facts | {"status": status} | progress | {"samples_per_s": module.consumed / wall_s}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(summary, indent=1))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(summary)
