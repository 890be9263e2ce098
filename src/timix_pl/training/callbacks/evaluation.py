"""Run evaluations during training, at their own interval."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.evaluator import EvaluationError, Evaluator, run_tasks
from timix_pl.evaluation.results import write_result
from timix_pl.training.sharding import whole_weights
from timix_pl.training.step_module import StepModule

log = logging.getLogger(__name__)


class EvaluationCallback(Callback):
    """Runs evaluators every n steps and after the last step, logs their metrics and writes their results.

    Args:
        evaluators: run on all ranks together.
        every_n_steps: interval; None: only after the last step.
        folder: for ``evaluation.json`` and ``examples/``.
        averaged: evaluate the moving average of the weights.
    """

    def __init__(self, evaluators: Sequence[Evaluator], *, every_n_steps: int | None, folder: Path, averaged: bool = False):
        self.evaluators, self.every_n_steps, self.folder, self.averaged = evaluators, every_n_steps, folder, averaged
        self.result = EvaluationResult({}, {})
        self.result_step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Evaluate in the steps that are due."""
        assert isinstance(pl_module, StepModule)
        step = pl_module.global_step
        if not self.evaluators or not (step == trainer.max_steps or (self.every_n_steps and step % self.every_n_steps == 0)):
            return
        try:
            with pl_module.average_in_place() if self.averaged else nullcontext(), whole_weights(pl_module.model):
                self.result = run_tasks(self.evaluators, pl_module.model, pl_module.device)
        except EvaluationError as error:
            log.warning("step %d: an evaluation failed, training goes on without its metrics: %s", step, error)
            self.result = error.result
        self.result_step = step
        pl_module.note(self.result.metrics)
        if trainer.is_global_zero:
            write_result(self.folder, self.result, step=step)
