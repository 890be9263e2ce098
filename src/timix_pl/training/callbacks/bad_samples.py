"""Samples that could not be used: written down, counted, and too many of them stop the run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.core.distributed import gather_objects
from timix_pl.core.errors import DataError
from timix_pl.core.files import drop_lines_after
from timix_pl.core.types import Batch
from timix_pl.core.words import with_keys
from timix_pl.training.step_module import StepModule

_MIN_SAMPLES = 1000


class BadSamplesCallback(Callback):
    """Appends each sample that was not used, or not whole, to ``quarantine.jsonl`` and logs ``train/num_bad_samples``, those not used.

    Args:
        path: of ``quarantine.jsonl``.
        max_bad_frac: share of the samples read above which the run stops, once 1,000 have been read.
        samples_per_step: pairs and region images of a step, over all ranks.
        keys: what the user calls the parameters that the reasons name; see :func:`timix_pl.core.words.with_keys`.
    Raises:
        DataError: too many samples are bad.
    """

    def __init__(self, path: Path, *, max_bad_frac: float, samples_per_step: float, keys: Mapping[str, str] = MappingProxyType({})):
        self.path, self.max_bad_frac, self.samples_per_step, self.keys = path, max_bad_frac, samples_per_step, keys
        self._num_bad_here = self._num_bad_before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the lines after the step that the run goes on from, and one that a kill cut off. No rank writes before."""
        if trainer.is_global_zero:
            drop_lines_after(self.path, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Write down this rank's bad samples; look at all ranks' when the step is logged."""
        assert isinstance(pl_module, StepModule)
        problems = batch.problems
        self._num_bad_here += _num_not_used(problems)
        if problems:
            with self.path.open("a") as file:
                for problem in problems:
                    line = {"step": pl_module.global_step} | problem | {"reason": with_keys(problem["reason"], self.keys)}
                    file.write(json.dumps(line) + "\n")
        if not pl_module.logs_now():
            return
        num_bad = self._num_bad()
        num_read = pl_module.global_step * self.samples_per_step
        pl_module.note({"train/num_bad_samples": float(num_bad)})
        if num_bad > self.max_bad_frac * max(num_read, _MIN_SAMPLES):
            raise DataError(
                f"`max_bad_frac={self.max_bad_frac:g}`: {num_bad} of {num_read:.0f} samples could not be used; "
                f"{self.path} names each one with its reason. Repair the shards, or raise the limit"
            )

    def _num_bad(self) -> int:
        return self._num_bad_before + sum(gather_objects(self._num_bad_here))

    def state_dict(self) -> dict[str, Any]:
        """How many on all ranks so far; called on all of them."""
        return {"num_bad": self._num_bad()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._num_bad_before = state_dict["num_bad"]


def _num_not_used(problems: Sequence[dict[str, Any]]) -> int:
    """Samples that were due and could not be used. Replacements that were bad too have the position of the first, and do not count."""
    bad = [problem for problem in problems if problem["outcome"] != "used in part"]
    return len({(problem["stream"], problem.get("position", -1 - number)) for number, problem in enumerate(bad)})
