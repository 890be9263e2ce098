"""What only a GPU can show runs on the CPU too, as far as it can, so that it has run."""

import pytest
import torch

from timix_pl.core.types import Batch, RegionBatch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def moved(batch: Batch | RegionBatch, device: str):
    """Its tensors on the device."""
    return batch._replace(**{name: value.to(device) for name, value in batch._asdict().items() if isinstance(value, torch.Tensor)})
