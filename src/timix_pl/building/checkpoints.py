"""What a run reads from the checkpoints of another run, or of an earlier start of its own."""

from pathlib import Path
from typing import Any

import torch

from timix_pl.config.saved import run_dir_of
from timix_pl.core.errors import RunError
from timix_pl.optim.average import averaged_weights
from timix_pl.training.callbacks.checkpoints import newest_whole_checkpoint
from timix_pl.training.checkpoint_io import plain_values, read_checkpoint

Facts = dict[str, Any]
"""What a model is built from besides the configuration, learnt once from the training shards; plain values, kept in every checkpoint."""


def load_weights(model: torch.nn.Module, path: Path, weights: str = "last") -> int:
    """Weights of a checkpoint that ``timix-train`` wrote. Further terms of the loss are only of use in training, and are left out.

    Args:
        weights: ``last``, or ``ema``: their moving average, and the last ones of what was not trained.
    Returns:
        The step after which it was written.
    Raises:
        RunError: it cannot be read, belongs to another model, or holds no average.
    """
    try:
        checkpoint = read_checkpoint(path, optimizers=False)
        state = checkpoint["state_dict"]
        averages = averaged_weights(state, "average.") if weights == "ema" else {}
        if weights == "ema" and not averages:
            raise RunError(f"{path}: there is no moving average of the weights; train with optim.ema=0.9999, or ask for weights=last")
        last = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
        model.load_state_dict({name: tensor for name, tensor in (last | averages).items() if not name.startswith("terms.")})
        return checkpoint["global_step"]
    except (RuntimeError, KeyError, OSError, EOFError) as error:
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise RunError(f"{path}: not a checkpoint of this model: {reason}") from error


def find_checkpoint(path: Path, key: str = "checkpoint") -> Path:
    """The checkpoint that is meant by a run directory (its newest whole one) or a checkpoint.

    Raises:
        RunError: there is none.
    """
    if run_dir_of(path) != path:
        return path
    found = newest_whole_checkpoint(path / "checkpoints")[0]
    if found is None:
        raise RunError(f"{key}={path}: no checkpoint there; give a run directory, or a .ckpt file")
    return found


def saved_facts(checkpoint: Path) -> Facts:
    """The facts that a checkpoint of a fine-tuning run keeps.

    Raises:
        RunError: it is not one.
    """
    try:
        return plain_values(checkpoint)["timix"]["facts"]
    except KeyError as error:
        raise RunError(f"{checkpoint}: not a checkpoint of a fine-tuning run (task=vqa, captioning)") from error
