"""Read and write checkpoints atomically: files, and folders that all ranks of a sharded run write together."""

import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from timix_pl.core.distributed import gather_objects, rank
from timix_pl.core.errors import RunError

MARKER, PLAIN_VALUES = "whole.json", "plain_values.pt"
"""Files in a folder: ``MARKER``, written last, has the sizes of all other files; ``PLAIN_VALUES`` has everything that is not a weight or an
optimizer's tensor."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, syncs it to disk and renames it. Loads only tensors and plain values (``weights_only``)."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | os.PathLike, storage_options: Any | None = None) -> None:
        """Write ``path`` completely, or leave the old file unchanged.

        Raises:
            RunError: the disk is full, or the folder cannot be written to.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(checkpoint, temporary)
            _put(temporary, target)
        except (OSError, RuntimeError) as error:
            remove(temporary)
            raise _unwritable(target, str(error)) from error

    def load_checkpoint(self, path: str | os.PathLike, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file or a folder without running code from it."""
        return read_checkpoint(Path(path), map_location or "cpu")


def save_folder(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a folder with the shards of all ranks, or leave the old one unchanged. Call it on all ranks with the same path.

    The folder is written under a temporary name, and its marker last. A folder without a marker, or with a file whose size differs from the
    marker, is incomplete.

    Raises:
        RunError: a rank cannot write; raised on all ranks.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    rest = {name: value for name, value in checkpoint.items() if name not in ("state_dict", "optimizer_states")}
    if "optimizer_states" in checkpoint:
        rest["optimizer_states"] = [{"param_groups": state["param_groups"]} for state in checkpoint["optimizer_states"]]
    problem = None
    try:
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        dist.barrier()
        dcp.save(named_tensors(checkpoint), checkpoint_id=temporary)
        if rank() == 0:
            _write(rest, temporary / PLAIN_VALUES)
            sizes = {file.name: file.stat().st_size for file in temporary.iterdir()}
            with (temporary / MARKER).open("w") as file:
                json.dump(sizes, file)
                file.flush()
                os.fsync(file.fileno())
            _put(temporary, path)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        problem = str(error)
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
    if problems := [text for text in gather_objects(problem) if text is not None]:
        raise _unwritable(path, problems[0])


def named_tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights and the optimizers' tensors of a checkpoint, with their names in a folder."""
    named = {f"state_dict/{name}": value for name, value in checkpoint["state_dict"].items()}
    for number, optimizer in enumerate(checkpoint.get("optimizer_states", [])):
        for parameter, values in optimizer["state"].items():
            named |= {f"optimizer_states/{number}/{parameter}/{key}": value for key, value in values.items()}
    return named


def plain_values(path: Path) -> dict[str, Any]:
    """Read a checkpoint without its tensors (those of a file are on the meta device).

    Raises:
        RunError: the checkpoint is incomplete.
    """
    try:
        if not path.is_dir():
            return _read_file(path, "meta")
        sizes = json.loads((path / MARKER).read_text())
        if differing := [name for name, size in sizes.items() if (path / name).stat().st_size != size]:
            raise RuntimeError(f"{', '.join(differing)}: not of the size that {MARKER} says")
        return torch.load(path / PLAIN_VALUES, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: not a whole checkpoint: {str(error).splitlines()[0]}") from error


def _read_file(path: Path, map_location: Any) -> dict[str, Any]:
    if path.is_file() and not zipfile.is_zipfile(path):  # PyTorch's message would be about its own options
        raise RuntimeError("it ends early, or is no checkpoint of timix-train")
    return torch.load(path, map_location=map_location, weights_only=True, mmap=True)


def stored_tensors(path: Path) -> dict[str, Any]:
    """Size and type of each tensor in a folder."""
    return dict(dcp.FileSystemReader(path).read_metadata().state_dict_metadata)


def read_checkpoint(path: Path, map_location: Any = "cpu", *, optimizers: bool = True) -> dict[str, Any]:
    """Read a whole checkpoint, file or folder, on this rank. ``optimizers=False``: skip the optimizers' tensors of a folder."""
    if not path.is_dir():
        return _read_file(path, map_location)
    checkpoint = plain_values(path) | {"state_dict": {}}
    for optimizer in checkpoint.get("optimizer_states", []):
        optimizer["state"] = {}
    stored = stored_tensors(path)
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.items()
        if optimizers or name.startswith("state_dict/")
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, checkpoint_id=path, no_dist=True)
    for name, tensor in tensors.items():
        kind, _, place = name.partition("/")
        if kind == "state_dict":
            checkpoint["state_dict"][place] = tensor
        else:
            number, parameter, key = place.split("/")
            checkpoint["optimizer_states"][int(number)]["state"].setdefault(int(parameter), {})[key] = tensor
    return checkpoint


def tidy(folder: Path) -> None:
    """Clean up a folder of checkpoints after a kill: restore checkpoints that were being replaced, remove unfinished ones."""
    for aside in folder.glob(".*.old"):
        path = folder / aside.name.removeprefix(".").removesuffix(".old")
        if path.exists():
            remove(aside)
        else:
            aside.rename(path)
    for unfinished in folder.glob(".*.tmp"):
        remove(unfinished)


def _put(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``. An old folder, or an old file if ``temporary`` is a folder, is moved aside first, because a rename
    cannot replace it."""
    aside = path.with_name(f".{path.name}.old")
    if path.exists() and (path.is_dir() or temporary.is_dir()):
        remove(aside)
        path.rename(aside)
    try:
        temporary.replace(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a checkpoint, file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _unwritable(path: Path, problem: str) -> RunError:
    return RunError(f"the checkpoint {path} cannot be written ({problem}); make room, then start again from the last whole one")
