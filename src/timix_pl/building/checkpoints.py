"""Find checkpoints, and read weights and facts from them."""

from pathlib import Path
from typing import Any

import torch

from timix_pl.config.saved import run_dir_of
from timix_pl.core.errors import RunError
from timix_pl.optim.average import averaged_weights
from timix_pl.training.callbacks.checkpoints import newest_whole_checkpoint
from timix_pl.training.checkpoint_io import plain_values, read_checkpoint

Facts = dict[str, Any]
"""Values besides the configuration that a model is built from, such as the answers it can give. They are read once from the training shards
and stored in every checkpoint."""


def load_weights(model: torch.nn.Module, path: Path, weights: str = "last") -> int:
    """Load the weights of a checkpoint of ``timix-train`` into ``model``, without those of further loss terms.

    Args:
        weights: ``last``, or ``ema``: the moving average, with the last weights for parameters that were not trained.
    Returns:
        The step after which the checkpoint was written.
    Raises:
        RunError: the checkpoint cannot be read, belongs to another model, or has no moving average.
    """
    try:
        checkpoint = read_checkpoint(path, optimizers=False)
        state = checkpoint["state_dict"]
        averages = averaged_weights(state, "average.") if weights == "ema" else {}
        if weights == "ema" and not averages:
            raise RunError(f"{path}: there is no moving average of the weights; train with optim.ema=0.9999, or choose weights=last")
        last = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
        model.load_state_dict({name: tensor for name, tensor in (last | averages).items() if not name.startswith("terms.")})
        return checkpoint["global_step"]
    except (RuntimeError, KeyError, OSError, EOFError) as error:
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise RunError(f"{path}: not a checkpoint of this model: {reason}") from error


def find_checkpoint(path: Path, key: str = "checkpoint") -> Path:
    """The checkpoint at ``path``, or the newest complete one if ``path`` is a run directory.

    Args:
        key: the option that named ``path``, for the error message.
    Raises:
        RunError: the run directory has no checkpoint.
    """
    if run_dir_of(path) != path:
        return path
    found = newest_whole_checkpoint(path / "checkpoints")[0]
    if found is None:
        raise RunError(f"{key}={path}: no checkpoint there; name a run directory with checkpoints, or a .ckpt file")
    return found


def saved_facts(checkpoint: Path) -> Facts:
    """The facts in a checkpoint of a fine-tuning run.

    Raises:
        RunError: the checkpoint is not of a fine-tuning run.
    """
    try:
        return plain_values(checkpoint)["timix"]["facts"]
    except KeyError as error:
        raise RunError(f"{checkpoint}: not a checkpoint of a fine-tuning run (task=vqa, captioning)") from error
