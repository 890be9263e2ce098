"""A log of all training samples, in order."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from timix_pl.core.files import drop_lines_after
from timix_pl.core.types import Batch, PairBatch, RegionBatch


class AuditCallback(Callback):
    """Appends a line for each sample of each finished step to ``audit-RANK.jsonl``: step, stream, position in it, shard, key, replaces.

    ``replaces`` lists the samples (SHARD/KEY) that should have been used at that position but were bad. Sorted by stream and position, the
    lines of all ranks are the same for any number of ranks. A resumed run removes the lines after its checkpoint.

    Args:
        folder: where the files go.
        global_batch_size, region_batch_size: images per step over all ranks; ``region_every_n_steps``: a region batch in every n-th step.
    """

    def __init__(self, folder: Path, *, global_batch_size: int, region_batch_size: int, region_every_n_steps: int):
        self.folder, self.global_batch_size = folder, global_batch_size
        self.region_batch_size, self.region_every_n_steps = region_batch_size, region_every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the lines of steps that are repeated, in the files of all ranks of earlier starts. No rank writes before that."""
        if trainer.is_global_zero:
            for path in self.folder.glob("audit-*.jsonl"):
                drop_lines_after(path, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Write this rank's lines."""
        step = trainer.global_step
        lines = list(self._lines("data.train_shards", (step - 1) * self.global_batch_size, batch, batch.problems, trainer))
        if isinstance(batch, PairBatch) and batch.regions is not None:
            first = (step - 1) // self.region_every_n_steps * self.region_batch_size
            lines += self._lines("data.region_shards", first, batch.regions, batch.problems, trainer)
        with (self.folder / f"audit-{trainer.global_rank}.jsonl").open("a") as file:
            file.writelines(json.dumps({"step": step} | line) + "\n" for line in lines)

    @staticmethod
    def _lines(
        stream: str, first: int, batch: Batch | RegionBatch, problems: Sequence[dict[str, Any]], trainer: Trainer
    ) -> Iterator[dict[str, Any]]:
        replaced: dict[int, list[str]] = {}
        for problem in problems:
            if problem["stream"] == stream and problem["outcome"] == "replaced":
                replaced.setdefault(problem["position"], []).append(f"{problem['shard']}/{problem['key']}")
        first += trainer.global_rank * len(batch.keys)
        for position, (shard, key) in enumerate(zip(batch.shards, batch.keys, strict=True), first):
            yield {"stream": stream, "position": position, "shard": shard, "key": key, "replaces": replaced.get(position, [])}
