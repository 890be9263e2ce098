"""Create open_clip's models and tokenizers, and the configuration to rebuild them."""

import difflib
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch

from timix_pl.core import architectures
from timix_pl.core.errors import ModelError

open_clip.add_model_config(architectures.FOLDER)

_MAX_REASON = 400
"""Longest part, in characters, of another library's message that is shown."""


def open_clip_config(
    architecture: str,
    *,
    text_model: str | None = None,
    text_pretrained: bool = True,
    image_size_px: int | None = None,
    context_length: int | None = None,
) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of the model that :func:`create_open_clip` builds.

    Raises:
        ModelError: unknown architecture, with the nearest names.
    """
    schema, folder = open_clip.factory.parse_model_name(architecture)
    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        names = {name.lower(): name for name in open_clip.list_models()}
        near = [names[name] for name in difflib.get_close_matches(architecture.lower(), names, 3, cutoff=0.4)]
        raise ModelError(f"`architecture={architecture}`: unknown; nearest: {', '.join(near) or 'none'}")
    if image_size_px is not None:
        config["vision_cfg"]["image_size"] = image_size_px
    if context_length is not None:
        config["text_cfg"]["context_length"] = context_length
    if text_model is not None:
        config["text_cfg"] = {
            "hf_model_name": text_model,
            "hf_tokenizer_name": text_model,
            "hf_model_pretrained": text_pretrained,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "mlp",
            "context_length": config["text_cfg"].get("context_length", 77),
        }
    elif schema == "local-dir" and "hf_model_name" in config["text_cfg"] and (Path(folder) / "config.json").is_file():
        config["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
    return config


def create_open_clip(
    architecture: str,
    *,
    pretrained: str | None = None,
    text_model: str | None = None,
    text_pretrained: bool = True,
    image_size_px: int | None = None,
    context_length: int | None = None,
    load_weights: bool = True,
    device: str = "cpu",
) -> tuple[Any, Any]:
    """An open_clip model with separate towers, and its tokenizer. See :class:`timix_pl.models.dual_encoder.DualEncoder.create`.

    Raises:
        ModelError: unknown architecture (with the nearest names), weights or text model that cannot be loaded.
    """
    load_weights = load_weights and device != "meta"
    config = open_clip_config(
        architecture,
        text_model=text_model,
        text_pretrained=text_pretrained and load_weights,
        image_size_px=image_size_px,
        context_length=context_length,
    )
    tag = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained is not None and not load_weights else {}
    is_own_text_tower = text_model is not None or architecture.startswith("local-dir:")
    try:
        with _quiet(), torch.device(device):  # without it, a model on the meta device would first take memory and time on the CPU
            model = open_clip.create_model(
                architecture,
                pretrained=pretrained if load_weights else None,
                pretrained_text=load_weights,
                device=device,
                force_custom_text=True,
                force_patch_dropout=0.0,
                force_preprocess_cfg={name: tag[name] for name in ("mean", "std") if name in tag},
                force_image_size=image_size_px,
                force_context_length=context_length,
                **({"text_cfg": config["text_cfg"]} if is_own_text_tower else {}),
            )
        tokenizer: Any
        if text_model is not None:
            tokenizer = open_clip.tokenizer.HFTokenizer(text_model, context_length=config["text_cfg"]["context_length"])
        else:
            tokenizer = open_clip.get_tokenizer(architecture, context_length=context_length)
    except Exception as error:  # open_clip, transformers and torch raise many kinds, assertions among them
        reason = " ".join(f"{error or type(error).__name__}".split())[:_MAX_REASON]
        if isinstance(error, pickle.UnpicklingError):  # its message recommends an unsafe way of loading, which may run code
            reason = "the weights are no file of PyTorch's tensors or safetensors"
        raise ModelError(
            f"`architecture={architecture}`{f', `pretrained={pretrained}`' if pretrained else ''}"
            f"{f', `text_model={text_model}`' if text_model else ''}: cannot be loaded: {reason}"
        ) from error
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip, which warns on the root logger that the model has no pretrained weights. That is intended here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
