"""Who started a process is read from the variables that torchrun and srun set."""

import pytest

from timix_pl.core.launched import Launched, launched

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}
BATCH_SCRIPT = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}
SRUN = BATCH_SCRIPT | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "7"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, None),  # Lightning's own
        (TORCHRUN, Launched("torchrun", 5, 2, 8)),
        (SRUN, Launched("srun", 7, 2, 8)),
        (BATCH_SCRIPT, None),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"}, None),
        (SRUN | TORCHRUN, Launched("torchrun", 5, 2, 8)),  # srun starts torchrun on each node
    ],
)
def test_variables(variables, expected):
    assert launched(variables) == expected
