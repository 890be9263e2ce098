"""ONNX graphs of the towers and the PTA head; needs ``pip install 'timix-pl[onnx]'``."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ConfigError, ModelError
from timix_pl.export.clip_tokenizer import clip_tokenizer, is_clip_tokenizer
from timix_pl.export.trained_model import TrainedModel
from timix_pl.export.writing import Written
from timix_pl.models.dual_encoder import DualEncoder

NEEDED = ("onnx", "onnxscript", "onnxruntime")
_MAX_BYTES = 1_800_000_000
"""Larger weights are written to a separate file beside the graph, because a graph can have at most 2 GB."""
_MAX_REASON = 300

USAGE = """
import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

folder = "FOLDER"  # the folder of this file
image_tower = onnxruntime.InferenceSession(f"{folder}/image.onnx")
text_tower = onnxruntime.InferenceSession(f"{folder}/text.onnx")
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")

height, width = HEIGHT, WIDTH
photo = Image.open("photo.jpg").convert("RGB")
factor = max(height / photo.height, width / photo.width)
photo = photo.resize((max(round(photo.width * factor), width), max(round(photo.height * factor), height)), Image.Resampling.BICUBIC)
left, top = (photo.width - width) // 2, (photo.height - height) // 2
images = np.asarray(photo.crop((left, top, left + width, top + height))).transpose(2, 0, 1)[None]  # uint8: the graph normalises
tokens = np.array([encoding.ids for encoding in tokenizer.encode_batch(["a dog", "a cat"])])

(image_features,) = image_tower.run(None, {"images": images})
(text_features,) = text_tower.run(None, {"tokens": tokens})
logits = LOGIT_SCALE * image_features @ text_features.TBIAS
"""
USAGE_OF_PTA = """
pta = onnxruntime.InferenceSession(f"{folder}/patch_scores.onnx")  # a logit per patch, of image i under text i
(heat_maps,) = pta.run(None, {"images": images.repeat(2, 0), "tokens": tokens})
"""
TOKENIZER_NOTE = "`tokenizer.json` is the Hugging Face tokenizer. open_clip also repairs the encoding and the spaces of texts before it."


class _Image(nn.Module):
    def __init__(self, encoder: DualEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.encoder.encode_image(images)


class _Text(nn.Module):
    def __init__(self, encoder: DualEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        return self.encoder.encode_text(tokens)


class _PatchScores(nn.Module):
    def __init__(self, encoder: DualEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: UInt8[Tensor, "B 3 H W"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B h w"]:
        return self.encoder.patch_scores(images, tokens)


def check_packages() -> None:
    """Check that the optional packages are installed.

    Raises:
        ConfigError: a package is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError([f"format=onnx: needs {', '.join(missing)}; pip install {' '.join(NEEDED)}, or 'timix-pl[onnx]'"])


@EXPORT_FORMATS.register("onnx")
def write(model: TrainedModel, folder: Path, out: Path) -> Written:
    """Write the graphs, and a ``tokenizer.json`` that pads and truncates to the context length.

    Raises:
        ModelError: PyTorch cannot export the architecture.
        ConfigError: a package is missing.
    """
    check_packages()
    import onnxruntime

    encoder = model.encoder.cpu()
    notes = [] if is_clip_tokenizer(model.tokenizer) else [TOKENIZER_NOTE]
    _write_tokenizer(model, folder)
    images = torch.zeros(2, 3, *model.image_size_px, dtype=torch.uint8)
    tokens = model.tokenizer(["a dog", "a cat"])
    _write_graph(_Image(encoder), {"images": images}, "image_features", folder / "image.onnx")
    _write_graph(_Text(encoder), {"tokens": tokens}, "text_features", folder / "text.onnx")
    usage = USAGE
    if encoder.pta is not None:
        _write_graph(_PatchScores(encoder), {"images": images, "tokens": tokens}, "patch_scores", folder / "patch_scores.onnx")
        usage += USAGE_OF_PTA
    values = {
        "HEIGHT": model.image_size_px[0],
        "WIDTH": model.image_size_px[1],
        "LOGIT_SCALE": model.logit_scale,
        "BIAS": "" if model.logit_bias is None else f" + {model.logit_bias}",
    }
    for name, value in values.items():
        usage = usage.replace(name, str(value))
    image_tower, text_tower = (onnxruntime.InferenceSession(folder / name) for name in ("image.onnx", "text.onnx"))
    return Written(
        "onnx",
        usage,
        notes,
        lambda images: torch.from_numpy(image_tower.run(None, {"images": images.numpy()})[0]),
        lambda tokens: torch.from_numpy(text_tower.run(None, {"tokens": tokens.numpy().astype(np.int64)})[0]),
    )


def _write_graph(part: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> None:
    batch = torch.export.Dim("batch")
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in part.parameters())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*axis name: batch will not be used")
            torch.onnx.export(
                part.eval(),
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                dynamo=True,
                external_data=num_bytes > _MAX_BYTES,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter raises many kinds of errors
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise ModelError(f"format=onnx: PyTorch cannot export {path.name}: {reason}; choose another format") from error


def _write_tokenizer(model: TrainedModel, folder: Path) -> None:
    tokenizer: Any = model.tokenizer
    if is_clip_tokenizer(tokenizer):
        backend, pad_id, pad_token = clip_tokenizer(tokenizer).backend_tokenizer, 0, "!"
    elif isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        inner = tokenizer.tokenizer
        backend, pad_id, pad_token = inner.backend_tokenizer, inner.pad_token_id, inner.pad_token
    else:
        raise ModelError(f"format=onnx: the tokenizer {type(tokenizer).__name__} has no tokenizer.json; choose another format")
    backend.enable_truncation(model.context_length)
    backend.enable_padding(length=model.context_length, pad_id=pad_id, pad_token=pad_token)
    backend.save(str(folder / "tokenizer.json"))
