"""Record samples that could not be used, and stop the run if there are too many."""

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
    """Appends each sample that was not used, or only in part, to ``quarantine.jsonl``. Logs the number not used, ``train/num_bad_samples``.

    Args:
        path: of ``quarantine.jsonl``.
        max_bad_frac: the run stops if more than this share of the samples read is bad; fewer than 1,000 samples count as 1,000.
        samples_per_step: pairs and region images of a step, over all ranks.
        keys: what the user calls the parameters that the reasons name; see :func:`timix_pl.core.words.with_keys`.
    Raises:
        DataError: too many samples are bad.
    """

    def __init__(self, path: Path, *, max_bad_frac: float, samples_per_step: float, keys: Mapping[str, str] = MappingProxyType({})):
        self.path, self.max_bad_frac, self.samples_per_step, self.keys = path, max_bad_frac, samples_per_step, keys
        self._num_bad_here = self._num_bad_before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the lines after the step that the run resumes from, and a truncated last line. No rank writes before that."""
        if trainer.is_global_zero:
            drop_lines_after(self.path, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Record this rank's bad samples. In steps that are logged, count those of all ranks."""
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
        """The number on all ranks so far. Must be called on all ranks."""
        return {"num_bad": self._num_bad()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self._num_bad_before = state_dict["num_bad"]


def _num_not_used(problems: Sequence[dict[str, Any]]) -> int:
    """The number of positions whose sample could not be used. Bad replacements have the same position and are not counted again."""
    bad = [problem for problem in problems if problem["outcome"] != "used in part"]
    return len({(problem["stream"], problem.get("position", -1 - number)) for number, problem in enumerate(bad)})
