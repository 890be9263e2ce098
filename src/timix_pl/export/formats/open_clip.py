"""For open_clip: ``open_clip.create_model_and_transforms("local-dir:DIR")``."""

import copy
import math
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import Written, save_tensors, write_json

CONFIG, WEIGHTS, NAME = "open_clip_config.json", "open_clip_model.safetensors", "clip_from_timix"

USAGE = """
import open_clip
import torch
from PIL import Image

folder = "FOLDER"  # the folder of this file
model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
model.eval()
with torch.no_grad():
    image_features = model.encode_image(transform(Image.open("photo.jpg"))[None], normalize=True)
    text_features = model.encode_text(tokenizer(["a dog", "a cat"]), normalize=True)
    logits = model.logit_scale.exp() * image_features @ text_features.TBIAS
"""
NOTE = (
    f'For tools that need an architecture and a weights file: call `open_clip.add_model_config(f"{{folder}}/{NAME}.json")`, then use the '
    f'architecture `{NAME}` with `pretrained=f"{{folder}}/{WEIGHTS}"`.'
)


@EXPORT_FORMATS.register("open_clip")
def write(model: TrainedModel, folder: Path, out: Path) -> Written:
    """Write weights and configuration to ``folder``; ``out`` is its final path."""
    config = write_architecture(model, folder, out)
    write_json(config["model_cfg"], folder / f"{NAME}.json")
    save_tensors(state_dict(model), folder / WEIGHTS)
    own = {"text_cfg": config["model_cfg"]["text_cfg"] | {"hf_model_name": str(folder)}} if _is_hugging_face(model) else {}
    loaded = open_clip.create_model(f"local-dir:{folder}", **own).eval()
    notes = [NOTE]
    statistics = config["preprocess_cfg"]
    if statistics["mean"] != list(open_clip.OPENAI_DATASET_MEAN) or statistics["std"] != list(open_clip.OPENAI_DATASET_STD):
        notes.append(f"They also need `image_mean={statistics['mean']}` and `image_std={statistics['std']}`.")
    if _is_hugging_face(model):
        name = config["model_cfg"]["text_cfg"]["hf_model_name"]
        local = name == str(out.resolve())
        source = out.resolve().name if local else name
        notes.append(f"open_clip reads the text tower's configuration from `{source}` (`hf_model_name` in `{CONFIG}`).")
        if local:
            notes[-1] += " If you move this folder, write its new path there."
    return Written(
        "open_clip",
        USAGE.replace("BIAS", "" if model.logit_bias is None else " + model.logit_bias"),
        notes,
        lambda images: loaded.encode_image(model.encoder.normalise(images), normalize=True),
        lambda tokens: loaded.encode_text(tokens, normalize=True),
    )


def write_architecture(model: TrainedModel, folder: Path, out: Path) -> dict[str, Any]:
    """Write the configuration, and the files that a Hugging Face text tower needs, but no weights. Returns the configuration."""
    model_cfg = copy.deepcopy(model.open_clip_config)
    model_cfg.pop("init_logit_bias", None)
    if model.logit_bias is not None:
        model_cfg["init_logit_bias"] = model.logit_bias
    if _is_hugging_face(model):
        text_cfg = model_cfg["text_cfg"]
        text_cfg["hf_model_pretrained"] = False
        text_cfg["hf_tokenizer_name"] = text_cfg.get("hf_tokenizer_name") or text_cfg["hf_model_name"]
        if Path(text_cfg["hf_model_name"]).is_dir():
            text_cfg["hf_model_name"] = text_cfg["hf_tokenizer_name"] = str(out.resolve())
        model.encoder.text.tower.config.save_pretrained(folder)
    if isinstance(model.tokenizer, open_clip.tokenizer.HFTokenizer):
        model.tokenizer.save_pretrained(folder)
    statistics = model.encoder.image.tower.preprocess_cfg
    preprocess_cfg = {
        "size": list(model.image_size_px),
        "mean": list(statistics["mean"]),
        "std": list(statistics["std"]),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    write_json(config, folder / CONFIG)
    return config


def state_dict(model: TrainedModel) -> dict[str, Tensor]:
    """The towers' weights with open_clip's names: those of ``CLIP``, or of ``CustomTextCLIP`` if the configuration needs it."""
    projection = "text_projection" if hasattr(model.encoder.text.tower, "text_projection") else "proj"
    names = {"image.tower.": "visual.", "text.tower.": "text.", "text.projection": f"text.{projection}"}
    state = model.encoder.state_dict()
    renamed = {new + name.removeprefix(old): tensor for name, tensor in state.items() for old, new in names.items() if name.startswith(old)}
    if not model.open_clip_config.get("custom_text") and not _is_hugging_face(model):
        renamed = {name.removeprefix("text."): tensor for name, tensor in renamed.items()}
    renamed["logit_scale"] = state["logit_scale"].reshape(()).clamp(max=math.log(model.encoder.max_logit_scale))
    if "logit_bias" in state:
        renamed["logit_bias"] = state["logit_bias"].reshape(())
    return renamed


def _is_hugging_face(model: TrainedModel) -> bool:
    return "hf_model_name" in model.open_clip_config["text_cfg"]
