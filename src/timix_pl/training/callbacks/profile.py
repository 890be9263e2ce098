"""A trace of a few steps, to see where their time goes."""

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
"""Rows of the table of operators."""


class ProfileCallback(Callback):
    """Traces some steps of rank 0 with PyTorch's profiler: ``rank0.pt.trace.json.gz``, and a table of the operators that took longest.

    The trace names the parts of a step: waiting for data, the towers, the PTA head, mixing, loss, backward, optimizer. Other steps cost
    nothing.

    Args:
        trace_dir: for the two files.
        first: the first step to trace, counted from the start of this process, from 1; ``last``: the last one.
    """

    def __init__(self, trace_dir: Path, first: int, last: int):
        self.trace_dir, self.first, self.last = trace_dir, first, last
        self._num_steps = 0
        self._tracing: ExitStack | None = None
        self._range: record_function | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A trace of the first step holds the wait for its batch too."""
        if self.first == 1:
            self._begin(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is here."""
        if self._tracing is not None:
            self._enter(f"step {trainer.global_step + 1}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Go on, begin or end."""
        self._num_steps += 1
        if self._tracing is not None and self._num_steps < self.last:
            self._enter("wait for data")
        elif self._num_steps == self.last:
            self._end()
        elif self._num_steps == self.first - 1:
            self._begin(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is shorter leaves what there is."""
        self._end()
        if self._num_steps < self.first and trainer.is_global_zero:
            log.warning("profile=[%d,%d]: this start ended after step %d, so no step was traced", self.first, self.last, self._num_steps)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
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
        """Leave the range that we are in, and enter the next one."""
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
    """Owner, method and name of each part of a step; the optimizer names itself."""
    named = [(part, "forward", _PART_NAMES.get(name, name)) for name, part in module.model.parts().items()]
    mixing = [(MixStep, "plan", "plan mixing"), (MixStep, "apply", "mix"), (MixStep, "apply_tokens", "mix")]
    loss = [(Contrastive, "__call__", "loss"), (Objective, "of_items", "loss of items")]
    return [*named, *mixing, *loss, (module, "manual_backward", "backward")]


@contextmanager
def _named(owner: Any, method: str, name: str) -> Iterator[None]:
    """Let calls of a method, of an object or a class, appear in the trace under a name."""
    before = vars(owner).get(method)
    setattr(owner, method, record_function(name)(getattr(owner, method)))
    try:
        yield
    finally:
        if before is None:
            delattr(owner, method)
        else:
            setattr(owner, method, before)
