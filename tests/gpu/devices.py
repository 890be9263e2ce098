"""What only a GPU can show runs on the CPU too, as far as it can, so that it has run."""

import pytest
import torch

from timix_pl.core.types import OnDevice

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def moved(batch: OnDevice, device: str):
    """Its tensors on the device."""
    return batch.to(torch.device(device))
