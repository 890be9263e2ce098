"""What all tests share: one CPU thread, and tests that need what this machine lacks are skipped."""

import gc
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # in processes that tests start, too; without it, Lightning sets another number for all later tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {}
    if "TIMIX_REAL_DATA" not in os.environ:
        reasons["real_data"] = "TIMIX_REAL_DATA is not set"
    if "TIMIX_TEST_SLURM" not in os.environ:
        reasons["slurm"] = "make test-slurm runs it"
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a GPU"
    for item in items:
        for marker in item.iter_markers():
            if marker.name in reasons:
                item.add_marker(pytest.mark.skip(reason=reasons[marker.name]))


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture
def real_data() -> Path:
    """The folder of published data sets; for tests marked ``real_data``."""
    return Path(os.environ["TIMIX_REAL_DATA"])
