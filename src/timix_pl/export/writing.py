"""Helpers that all formats share, such as the comparison of features."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from timix_pl.core.errors import ConfigError, ModelError
from timix_pl.export.trained_model import TrainedModel

MARKER = "timix_export.json"
"""A file in every export, with its format and the version that wrote it. Folders with it may be overwritten."""
TOLERANCE = 1e-5


class Written(NamedTuple):
    """An export that was written.

    ``usage``: Python code that loads it from ``FOLDER``. ``encode_image`` (of uint8 pixels) and ``encode_text`` (of tokens) run the export
    as its users would load it; both give L2-normalised features.
    """

    library_name: str
    usage: str
    notes: list[str]
    encode_image: Callable[[Tensor], Tensor]
    encode_text: Callable[[Tensor], Tensor]


def check_same_features(model: TrainedModel, written: Written, format: str) -> None:
    """Compare the features of two noise images and of two texts.

    Raises:
        ModelError: features differ by more than 1e-5.
    """
    images = torch.randint(0, 256, (2, 3, *model.image_size_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = model.tokenizer(["a photo of a dog", "two small red rings, left of a blue square"])
    with torch.no_grad():
        pairs = {
            "image": (model.encode_image(images), written.encode_image(images)),
            "text": (model.encode_text(tokens), written.encode_text(tokens)),
        }
    for side, (own, other) in pairs.items():
        difference = (own - other).abs().max().item()
        if not difference <= TOLERANCE:
            raise ModelError(
                f"format={format}: the {side} features of the export differ from the model's by {difference:.2g}, so it was not kept; "
                "choose another format, and report this"
            )


def check_out(out: Path) -> None:
    """Check that ``out`` does not exist, is an empty folder, or is an earlier export.

    Raises:
        ConfigError: other files would be lost.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError([f"out={out}: is a file; name a folder"])
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ConfigError([f"out={out}: the folder holds files that are no export of timix-export; name another, or empty it"])


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def write_json(content: Any, path: Path) -> None:
    """Write indented JSON in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
