"""``summary.json``, and a run's row in the tables of wandb and TensorBoard: what a run is and how far it got."""

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
    """Writes status, steps, time and throughput at every logged step and at the end; the time of a run's several starts adds up.

    Args:
        path: of ``summary.json``.
        facts: what is known beforehand: name, number of training samples.
        config: the configuration, for TensorBoard's table of runs.
        evaluation: whose last metrics go there with it.
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
        """Still running."""
        assert isinstance(pl_module, StepModule)
        if pl_module.logs_now():
            self._write("running", trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Done, unless something interrupted it."""
        if trainer.interrupted:
            return
        self._write("finished", trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.config, self.evaluation.result.metrics, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stopped by an error, a signal or a person."""
        self._write("interrupted", trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"wall_s": self._wall_s()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
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
