"""What ``timix-evaluate`` leaves in a run's folder, and the ranks that it works on."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from torch.utils.data import Dataset

from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.core.distributed import gather_objects
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.launched import launched
from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.results import write_result
from timix_pl.evaluation.tasks import EvaluationError, Evaluator
from timix_pl.reports.figures import count_text
from timix_pl.reports.page import write_report

FOLDER = "evaluate"
"""Of a run's folder: what was evaluated after the training."""


class Evaluated(NamedTuple):
    """What was evaluated and what came out; ``about`` tells of each evaluation its number of samples, its data and the overrides.

    ``error``: some evaluations failed; ``result`` is what the others found.
    """

    run_dir: Path
    checkpoint: Path
    step: int
    about: dict[str, dict[str, Any]]
    result: EvaluationResult
    error: EvaluationError | None

    def told(self) -> str:
        """Which weights were evaluated, on how many samples."""
        return f"Checkpoint: {self.checkpoint}, step {self.step:,}\n{told_samples(self.about)}"

    def write(self) -> list[str]:
        """Join ``RUN_DIR/evaluate`` and write the report anew; what was found of the same step before stays, of another step it goes.

        Returns:
            Where ``evaluation.json`` and the report are.
        """
        folder = self.run_dir / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / "evaluation.json"
        with (folder / ".lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # several evaluations of one run may end at the same time
            before = _of_step(path, self.step)
            kept = {name: about for name, about in before.get("evaluations", {}).items() if name not in self.about}
            metrics, chance = (
                {name: value for name, value in before.get(key, {}).items() if name.split("/")[0] in kept} | found
                for key, found in (("metrics", self.result.metrics), ("chance", self.result.chance))
            )
            result = EvaluationResult(metrics, chance, self.result.examples)
            write_result(folder, result, step=self.step, checkpoint=self.checkpoint.name, evaluations=kept | self.about)
        return [f"Results: {path}", f"Report: {write_report(self.run_dir)}"]


class EvaluatedModel(NamedTuple):
    """As ``Evaluated``, of a model of others; ``out``: a folder for the results, if they are to be kept."""

    model: str
    weights: str
    out: Path | None
    about: dict[str, dict[str, Any]]
    result: EvaluationResult
    error: EvaluationError | None

    def told(self) -> str:
        """Which weights were evaluated, on how many samples."""
        return f"Model: {self.model}{f', weights {self.weights}' if self.weights else ''}\n{told_samples(self.about)}"

    def write(self) -> list[str]:
        """``evaluation.json`` and examples.

        Returns:
            Where it is; nothing where no results are kept.
        """
        if self.out is None:
            return []
        self.out.mkdir(parents=True, exist_ok=True)
        write_result(self.out, self.result, model=self.model, weights=self.weights, evaluations=self.about)
        return [f"Results: {self.out / 'evaluation.json'}"]


def told_samples(about: dict[str, dict[str, Any]]) -> str:
    """On how many samples each evaluation ran."""
    counts = ", ".join(f"{name} {count_text(of['num_samples'])}" for name, of in about.items())
    return f"Samples: {counts or 'none, no evaluation has what it needs'}"


def _of_step(path: Path, step: int) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if content["step"] == step else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def forget_evaluations(run_dir: Path) -> None:
    """Remove what was evaluated of weights that no longer are this run's."""
    (run_dir / "evaluation.json").unlink(missing_ok=True)
    for folder in ("examples", FOLDER):
        shutil.rmtree(run_dir / folder, ignore_errors=True)


def about_evaluations(evaluators: Sequence[Evaluator], cfg: RootConfig, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each evaluation the number of samples, by set where it may have several, and where all data lies."""
    shards = {name: value for name, value in vars(cfg.data).items() if name.endswith("_shards") and isinstance(value, str | list)}
    given = [word for word in overrides if not word.startswith("evaluation.tasks=")]
    about = {}
    for evaluator in evaluators:
        sizes = {name: len(part) for name, part in vars(evaluator).items() if isinstance(part, Dataset)}  # type: ignore[arg-type]
        about[evaluator.name] = {"num_samples": sizes.get("dataset", sizes), "data": shards, "overrides": given}
    return about


def cluster_environment() -> ClusterEnvironment:
    """Named here, since Lightning takes any process of a SLURM job for one of srun's."""
    started = launched()
    if started is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if started.by == "torchrun" else SLURMEnvironment(auto_requeue=False)


@contextmanager
def joined_ranks(cfg: RootConfig, checkpoint: Path) -> Iterator[torch.device]:
    """Meet the ranks that torchrun or srun started with this one, where there are any.

    Yields:
        The device of this rank.
    Raises:
        ConfigError: there are more ranks than GPUs.
        RunError: the ranks found different checkpoints.
    """
    gpu = torch.cuda.is_available() and cfg.trainer.accelerator != Accelerator.cpu
    if launched() is None:
        yield torch.device("cuda" if gpu else "cpu")
        return
    environment = cluster_environment()
    device = torch.device("cpu")
    if gpu:
        if environment.local_rank() >= torch.cuda.device_count():
            raise ConfigError(
                [
                    f"trainer.accelerator={cfg.trainer.accelerator}: rank {environment.global_rank()} finds no GPU of its own among the "
                    f"{torch.cuda.device_count()} here; start one process a GPU, or set trainer.accelerator=cpu"
                ]
            )
        device = torch.device("cuda", environment.local_rank())
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo",
        init_method=f"tcp://{environment.main_address}:{environment.main_port}",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )
    try:
        if len(found := dict.fromkeys(gather_objects(str(checkpoint)))) > 1:
            raise RunError(f"the ranks found different checkpoints, {' and '.join(found)}: a run writes there; name one with checkpoint=")
        yield device
    finally:
        dist.destroy_process_group()
