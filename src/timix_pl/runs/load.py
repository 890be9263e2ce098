"""Load a trained model for use in Python."""

from pathlib import Path

import torch

from timix_pl.building.assemble import load_model
from timix_pl.config.saved import pretrained_run_of
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import is_pretraining
from timix_pl.core.errors import RunError
from timix_pl.core.files import nearest_path
from timix_pl.export.formats import safetensors
from timix_pl.export.trained_model import TrainedModel
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.open_clip import open_clip_config
from timix_pl.runs.evaluate import read_run


def load(path: str | Path, device: str | torch.device = "cpu", weights: str = "last") -> TrainedModel:
    """Load a trained model.

    Args:
        path: a run directory (for its newest complete checkpoint), a checkpoint inside one, or a folder of ``timix-export
            format=safetensors``.
        weights: ``last``, or ``ema``: their moving average, of a run with ``optim.ema``.
    Raises:
        RunError: there is no checkpoint, it belongs to another model, or it lacks these weights.
        ModelError: the export is incomplete.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: there is no such run directory, checkpoint or export. {nearest_path(path)}")
    if weights not in ("last", "ema"):
        raise RunError(f"weights={weights}: choose last or ema")
    if not safetensors.is_export(path):
        return load_run(*read_run(path), device, weights)
    if weights == "ema":
        raise RunError(f"{path}: weights=ema: an export has only one kind of weights, chosen when it was written; remove weights")
    return safetensors.load(path, device)


def load_run(cfg: RootConfig, checkpoint: Path, device: str | torch.device = "cpu", weights: str = "last") -> TrainedModel:
    if not is_pretraining(cfg):
        raise RunError(
            f"{checkpoint}: a run with task={cfg.task}; only pre-training runs can be loaded and exported; give {pretrained_run_of(cfg)}"
        )
    encoder, _ = load_model(cfg, checkpoint, weights)
    assert isinstance(encoder, DualEncoder)
    config = open_clip_config(
        cfg.model.architecture,
        text_model=cfg.model.text_model,
        image_size_px=cfg.model.image_size_px,
        context_length=cfg.model.context_length,
    )
    return TrainedModel(encoder, config, device)
