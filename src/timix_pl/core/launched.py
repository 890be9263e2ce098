"""Whether torchrun or srun started this process as one of several."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launched:
    """One of several processes of a run, as the launcher's environment variables describe it. ``by``: ``torchrun`` or ``srun``."""

    by: str
    rank: int
    num_nodes: int
    num_ranks: int


def launched(variables: Mapping[str, str] = os.environ) -> Launched | None:
    """How torchrun or srun started this process; None if it was started by itself.

    An srun with one task counts as started by itself: the process may start others on its machine.
    """
    if "TORCHELASTIC_RUN_ID" in variables:
        num_ranks = int(variables["WORLD_SIZE"])
        return Launched("torchrun", int(variables["RANK"]), num_ranks // int(variables["LOCAL_WORLD_SIZE"]), num_ranks)
    num_ranks = int(variables.get("SLURM_STEP_NUM_TASKS", 1))
    if num_ranks > 1:
        return Launched("srun", int(variables["SLURM_PROCID"]), int(variables["SLURM_STEP_NUM_NODES"]), num_ranks)
    return None


def rank_at_start() -> int:
    """The rank of this process, before the process group exists."""
    started = launched()
    return (
        started.rank if started else int(os.environ.get("LOCAL_RANK", 0))
    )  # Lightning sets LOCAL_RANK in the processes that it starts on this machine
