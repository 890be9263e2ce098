"""Image and text towers of open_clip, timm and Hugging Face behind two plain modules."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from timix_pl.core.errors import ModelError
from timix_pl.models import architectures

open_clip.add_model_config(architectures.FOLDER)

_MAX_REASON = 400
"""Characters of another library's message that are passed on."""


class ImageTower(nn.Module):
    """An open_clip image tower and its patch features after block ``block`` (counted from 1).

    Raises:
        ModelError: the tower has no such block, or no interface to intermediate features.
    """

    def __init__(self, tower: nn.Module, block: int, image_size_px: tuple[int, int]):
        super().__init__()
        self.tower: Any = tower
        self.block = block
        if not hasattr(tower, "forward_intermediates"):
            raise ModelError(
                f"model.architecture: {type(tower).__name__} has no forward_intermediates, so PTA cannot read patch features from it"
            )
        self.patch_grid, self.patch_dim = self._probe(image_size_px)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P C"]]:
        """Image features (not normalised) and patch features."""
        output = self.tower.forward_intermediates(images, indices=[self.block - 1])
        return output["image_features"], output["image_intermediates"][0].flatten(2).transpose(1, 2)

    def patch_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        """Patch features alone: the image runs to the block and stops there."""
        output = self.tower.forward_intermediates(images, indices=[self.block - 1], stop_early=True, intermediates_only=True)
        return output["image_intermediates"][0].flatten(2).transpose(1, 2)

    def _probe(self, image_size_px: tuple[int, int]) -> tuple[tuple[int, int], int]:
        patch_px = _patch_px(self.tower, self.block)
        if patch_px and (image_size_px[0] % patch_px[0] or image_size_px[1] % patch_px[1]):
            raise ModelError(f"model.image_size_px={image_size_px}: not a multiple of the patch size {patch_px}; choose one")
        parameter = next(self.tower.parameters())
        training = self.tower.training
        self.tower.eval()
        try:
            if self.block < 1:
                raise IndexError(self.block)
            with torch.no_grad():
                images = torch.zeros(1, 3, *image_size_px, device=parameter.device, dtype=parameter.dtype)
                output = self.tower.forward_intermediates(images, indices=[self.block - 1])
        except (AssertionError, IndexError, ValueError) as error:
            raise ModelError(f"pta.block={self.block}: the image tower has no such block (they count from 1); choose another") from error
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ModelError(
                f"model.architecture: patch features cannot be read from {type(self.tower).__name__} ({error}); choose a vision transformer"
            ) from error
        finally:
            self.tower.train(training)
        _, channels, rows, columns = output["image_intermediates"][0].shape
        if image_size_px[0] % rows or image_size_px[1] % columns:
            raise ModelError(
                f"model.image_size_px={image_size_px}: not a multiple of the grid of {rows} x {columns} patches; "
                "choose a multiple of the patch size"
            )
        return (rows, columns), channels


def _patch_px(tower: Any, block: int) -> tuple[int, int] | None:
    """Height and width of a patch after the block, where the tower tells: open_clip's transformers and timm's models do."""
    if hasattr(tower, "patch_size"):
        return tower.patch_size
    stages = getattr(getattr(tower, "trunk", None), "feature_info", None)
    return (stages[min(block, len(stages)) - 1]["reduction"],) * 2 if stages else None


class TextTower(nn.Module):
    """A text tower of open_clip or Hugging Face whose projection is kept apart, so that the pooled feature before it can be read."""

    def __init__(self, tower: Any):
        super().__init__()
        name = "text_projection" if hasattr(tower, "text_projection") else "proj"
        projection = getattr(tower, name)
        setattr(tower, name, None if name == "text_projection" else nn.Identity())
        self.tower: Any = tower
        self.tower.output_tokens = False
        self.projection = projection if projection is not None else nn.Identity()

    def forward(self, tokens: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B E"]]:
        """Text features (not normalised) and the pooled feature before projection."""
        pooled = self.tower(tokens)
        features = self.projection(pooled) if isinstance(self.projection, nn.Module) else pooled @ self.projection
        return features, pooled


def create_open_clip(
    architecture: str,
    *,
    pretrained: str | None = None,
    text_model: str | None = None,
    text_pretrained: bool = True,
    image_size_px: int | None = None,
    context_length: int | None = None,
    device: str = "cpu",
) -> tuple[Any, Any]:
    """An open_clip model with separate towers, and its tokenizer. See :class:`timix_pl.models.dual_encoder.DualEncoder.create`.

    Raises:
        ModelError: unknown architecture (with the nearest names), weights or text model that cannot be loaded.
    """
    config = open_clip.get_model_config(architecture)
    if config is None:
        names = {name.lower(): name for name in open_clip.list_models()}
        near = [names[name] for name in difflib.get_close_matches(architecture.lower(), names, 3, cutoff=0.4)]
        raise ModelError(f"model.architecture={architecture}: unknown; nearest: {', '.join(near) or 'none'}")
    overrides: dict[str, Any] = {}
    if text_model is not None:
        length = context_length or config["text_cfg"].get("context_length", 77)
        overrides["text_cfg"] = {
            "hf_model_name": text_model,
            "hf_tokenizer_name": text_model,
            "hf_model_pretrained": text_pretrained and device != "meta",
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "mlp",
            "context_length": length,
        }
    try:
        with _quiet():
            model = open_clip.create_model(
                architecture,
                pretrained=None if device == "meta" else pretrained,
                device=device,
                force_custom_text=True,
                force_patch_dropout=0.0,
                force_image_size=image_size_px,
                force_context_length=context_length,
                **overrides,
            )
        tokenizer: Any
        if text_model is not None:
            tokenizer = open_clip.tokenizer.HFTokenizer(text_model, context_length=length)
        else:
            tokenizer = open_clip.get_tokenizer(architecture, context_length=context_length)
    except Exception as error:  # open_clip, transformers and torch raise many kinds, assertions among them
        reason = " ".join(f"{error or type(error).__name__}".split())[:_MAX_REASON]
        raise ModelError(
            f"model.architecture={architecture}, model.pretrained={pretrained}, model.text_model={text_model}: cannot be loaded: {reason}"
        ) from error
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns on the root logger that a model without pretrained weights has none; that is what was asked for."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
