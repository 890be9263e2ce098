"""Who started this process beside others: torchrun or srun."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launched:
    """One of several processes of a run, as the launcher's variables tell it."""

    by: str
    rank: int
    num_nodes: int
    num_ranks: int


def launched(variables: Mapping[str, str] = os.environ) -> Launched | None:
    """How torchrun started this process, or an srun of several tasks; None for a process that was started alone.

    An srun of one task is a process on its own, which may start others on its machine.
    """
    if "TORCHELASTIC_RUN_ID" in variables:
        num_ranks = int(variables["WORLD_SIZE"])
        return Launched("torchrun", int(variables["RANK"]), num_ranks // int(variables["LOCAL_WORLD_SIZE"]), num_ranks)
    num_ranks = int(variables.get("SLURM_STEP_NUM_TASKS", 1))
    if num_ranks > 1:
        return Launched("srun", int(variables["SLURM_PROCID"]), int(variables["SLURM_STEP_NUM_NODES"]), num_ranks)
    return None


def rank_at_start() -> int:
    """This process's number before it has met the others."""
    started = launched()
    return started.rank if started else int(os.environ.get("LOCAL_RANK", 0))  # Lightning's, on one machine
