"""Checkpoints that are whole or absent."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from timix_pl.core.errors import RunError
from timix_pl.core.files import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, to disk, and renames; loads tensors and plain values alone (``weights_only``)."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | os.PathLike, storage_options: Any | None = None) -> None:
        """Write ``path`` whole, or leave what was there.

        Raises:
            RunError: the disk is full, or the folder cannot be written to.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"the checkpoint {target} cannot be written ({error}); make room, then start again from the last whole one"
            ) from error

    def load_checkpoint(self, path: str | os.PathLike, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read it without running code from it."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)
