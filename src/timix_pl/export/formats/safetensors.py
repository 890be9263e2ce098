"""For timix-pl itself, with the PTA head: ``timix_pl.load("DIR")``."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ModelError
from timix_pl.export.formats.open_clip import write_architecture
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import Written, save_tensors, write_json
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.open_clip import open_clip_config

CONFIG, WEIGHTS, ARCHITECTURE = "config.json", "model.safetensors", "architecture"

USAGE = """
import timix_pl
from PIL import Image

folder = "FOLDER"  # the folder of this file
model = timix_pl.load(folder)
image = Image.open("photo.jpg")
image_features, text_features = model.encode_image(image), model.encode_text(["a dog", "a cat"])
logits = model.logit_scale * image_features @ text_features.TBIAS
"""
USAGE_OF_PTA = 'heat_maps = model.patch_scores(image, ["a dog", "a cat"])  # a logit per patch\n'


@EXPORT_FORMATS.register("safetensors")
def write(model: TrainedModel, folder: Path, out: Path) -> Written:
    """Write weights, configuration and architecture to ``folder``; ``out`` is its final path."""
    (folder / ARCHITECTURE).mkdir()
    write_architecture(model, folder / ARCHITECTURE, out / ARCHITECTURE)
    save_tensors(model.encoder.state_dict(), folder / WEIGHTS)
    pta = model.encoder.pta
    create = {
        "pta_block": model.encoder.image.block,
        "pta_hidden_dim": None if pta is None else pta.local.out_features,
        "with_pta": pta is not None,
        "init_logit_bias": model.logit_bias,
        "max_logit_scale": model.encoder.max_logit_scale,
    }
    write_json({"DualEncoder.create": create}, folder / CONFIG)
    loaded = load(folder)
    usage = USAGE.replace("BIAS", "" if model.logit_bias is None else " + model.logit_bias") + (USAGE_OF_PTA if pta is not None else "")
    return Written("timix-pl", usage, [], loaded.encode_image, loaded.encode_text)


def is_export(folder: Path) -> bool:
    """Whether the folder is an export that :func:`load` can read."""
    return (folder / CONFIG).is_file() and (folder / ARCHITECTURE).is_dir()


def load(folder: Path, device: str | torch.device = "cpu") -> TrainedModel:
    """Load the model from an export.

    Raises:
        ModelError: a file is missing or damaged.
    """
    architecture = f"local-dir:{folder / ARCHITECTURE}"
    try:
        create = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["DualEncoder.create"]
        encoder = DualEncoder.create(architecture, **create)
        encoder.load_state_dict(load_file(folder / WEIGHTS))
        return TrainedModel(encoder, open_clip_config(architecture), device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: not a whole export of format=safetensors: {str(error).splitlines()[0]}; write it again") from error
