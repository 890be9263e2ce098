"""Profile a few steps."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile, record_function

from timix_pl.mixing.step import MixStep
from timix_pl.training.objective import Contrastive, Objective
from timix_pl.training.step_module import StepModule

log = logging.getLogger(__name__)

_PART_NAMES = {"image": "image tower", "text": "text tower", "pta": "PTA head"}
_NUM_OPERATORS = 50
"""Number of rows of the table of operators."""


class ProfileCallback(Callback):
    """Traces some steps of rank 0 with PyTorch's profiler: ``rank0.pt.trace.json.gz``, and a table of the operators that took longest.

    The trace names the parts of a step: waiting for data, the towers, the PTA head, mixing, loss, backward, optimizer. Other steps are not
    slowed down.

    Args:
        trace_dir: for the two files.
        first, last: the first and the last step to trace, counted from 1 at the start of this process.
    """

    def __init__(self, trace_dir: Path, first: int, last: int):
        self.trace_dir, self.first, self.last = trace_dir, first, last
        self._num_steps = 0
        self._tracing: ExitStack | None = None
        self._range: record_function | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin before the first batch, so that a trace of the first step includes the wait for its batch."""
        if self.first == 1:
            self._begin(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the range of waiting for data."""
        if self._tracing is not None:
            self._enter(f"step {trainer.global_step + 1}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance, begin or end the trace."""
        self._num_steps += 1
        if self._tracing is not None and self._num_steps < self.last:
            self._enter("wait for data")
        elif self._num_steps == self.last:
            self._end()
        elif self._num_steps == self.first - 1:
            self._begin(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the steps traced so far, if the run ends before ``last``."""
        self._end()
        if self._num_steps < self.first and trainer.is_global_zero:
            log.warning("profile=[%d,%d]: this start ended after step %d, so no step was traced", self.first, self.last, self._num_steps)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the steps traced so far."""
        self._end()

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, StepModule)
        on_gpu = module.device.type == "cuda"
        profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
        self._tracing = ExitStack()
        self._tracing.callback(self._write, profiler, on_gpu)
        self._tracing.enter_context(profiler)
        for part in _parts(module):
            self._tracing.enter_context(_named(*part))
        self._enter("wait for data")

    def _enter(self, name: str) -> None:
        """End the current range of the trace and begin the next one."""
        if self._range is not None:
            self._range.__exit__(None, None, None)
        self._range = record_function(name)
        self._range.__enter__()

    def _end(self) -> None:
        if self._tracing is None or self._range is None:
            return
        self._range.__exit__(None, None, None)
        tracing, self._tracing, self._range = self._tracing, None, None
        tracing.close()

    def _write(self, profiler: profile, on_gpu: bool) -> None:
        if self._num_steps < self.first:
            return
        self.trace_dir.mkdir(parents=True, exist_ok=True)
        trace, table = self.trace_dir / "rank0.pt.trace.json.gz", self.trace_dir / "rank0.operators.txt"
        profiler.export_chrome_trace(str(trace))
        by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table.write_text(profiler.key_averages().table(sort_by=by, row_limit=_NUM_OPERATORS, max_name_column_width=80))
        log.info("%s: open it at https://ui.perfetto.dev; the operators that took longest are in %s", trace, table)


def _parts(module: StepModule) -> list[tuple[Any, str, str]]:
    """Owner, method and name of each part of a step. PyTorch names the optimizer itself."""
    named = [(part, "forward", _PART_NAMES.get(name, name)) for name, part in module.model.parts().items()]
    mixing = [(MixStep, "plan", "plan mixing"), (MixStep, "apply", "mix"), (MixStep, "apply_tokens", "mix")]
    loss = [(Contrastive, "__call__", "loss"), (Objective, "of_items", "loss of items")]
    return [*named, *mixing, *loss, (module, "manual_backward", "backward")]


@contextmanager
def _named(owner: Any, method: str, name: str) -> Iterator[None]:
    """Show calls of a method, of an object or a class, under a name in the trace."""
    before = vars(owner).get(method)
    setattr(owner, method, record_function(name)(getattr(owner, method)))
    try:
        yield
    finally:
        if before is None:
            delattr(owner, method)
        else:
            setattr(owner, method, before)
