"""Image and text towers of open_clip, timm and Hugging Face behind two plain modules."""

import difflib
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import open_clip
import timm
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timix_pl.core.errors import ModelError
from timix_pl.models import architectures

open_clip.add_model_config(architectures.FOLDER)

_MAX_REASON = 400
"""Characters of another library's message that are passed on."""


class ImageOutput(NamedTuple):
    """What a pass through the image tower gives; None for what it did not come by.

    ``image_features`` are not L2-normalised. ``patch_features`` are the patches' tokens after the tower's PTA block, K = P or the patches
    kept. ``tokens`` are those after the block asked for, the class token first; after block 0 there is none yet.
    """

    image_features: Float[Tensor, "B D"] | None
    patch_features: Float[Tensor, "B K C"] | None
    tokens: Float[Tensor, "B L C"] | None


class ImageTower(nn.Module):
    """An open_clip image tower and its patch features after block ``block`` (counted from 1).

    Plain vision transformers (open_clip's own, and timm's ``VisionTransformer``) are walked block by block, which all arguments of
    :meth:`forward` but ``stop=block`` need. Other towers run through open_clip's ``forward_intermediates``.

    Raises:
        ModelError: the tower has no such block, or no interface to intermediate features.
    """

    def __init__(self, tower: nn.Module, block: int, image_size_px: tuple[int, int]):
        super().__init__()
        self.tower: Any = tower
        self.block = block
        self.checkpointing = False
        if not hasattr(tower, "forward_intermediates"):
            raise ModelError(
                f"model.architecture: {type(tower).__name__} has no forward_intermediates, so PTA cannot read patch features from it"
            )
        self.patch_grid, self.patch_dim = self._probe(image_size_px)
        self.walk = walk_of(tower, self.patch_grid)

    def forward(
        self,
        x: Float[Tensor, "B ..."],
        *,
        start: int | None = None,
        stop: int | None = None,
        tokens_after: int | None = None,
        keep: Int[Tensor, "B K"] | None = None,
    ) -> ImageOutput:
        """Run the whole tower, or a part of it.

        Block numbers count from 1; after block 0 there are the patch embeddings, without class token and positions yet.

        Args:
            x: images (B 3 H W), normalised; with ``start``, tokens (B L C).
            start: the block that the tokens come from.
            stop: the last block to run; None runs all of them and the head.
            tokens_after: the block whose tokens are wanted.
            keep: the patches that go through the blocks, ascending; the others are dropped once they have their positions.
        """
        if self.walk is None:
            assert start is None and stop in (None, self.block) and tokens_after is None and keep is None
            output = self.tower.forward_intermediates(
                x, indices=[self.block - 1], stop_early=stop is not None, intermediates_only=stop is not None
            )
            return ImageOutput(output.get("image_features"), output["image_intermediates"][0].flatten(2).mT, None)
        patch_features = tokens = None
        if start is None:
            x, start = self.walk.embed(x), 0
        for number in range(start, len(self.walk.blocks) + 1 if stop is None else stop + 1):
            if number > start:
                if number == 1:
                    x = self._kept(self.walk.place(x), keep)
                x = self._run(self.walk.blocks[number - 1], x)
            if number == tokens_after:
                tokens = x
            if number == self.block:
                patch_features = x[:, self.walk.num_prefix :]
        return ImageOutput(self.walk.head(x) if stop is None else None, patch_features, tokens)

    def blocks(self) -> list[nn.Module]:
        """The repeated transformer blocks; none where the tower is of another make."""
        return list(self.walk.blocks if self.walk is not None else getattr(getattr(self.tower, "trunk", None), "blocks", ()))

    def checkpoint_gradients(self) -> None:
        """From now on, recompute each block in the backward pass in place of keeping its activations.

        Raises:
            ModelError: the tower offers no way to do so.
        """
        self.checkpointing = True
        if self.walk is None:
            try:
                self.tower.trunk.set_grad_checkpointing(True)
            except (AttributeError, AssertionError) as error:
                raise ModelError(
                    f"trainer.gradient_checkpointing=true: {type(self.tower).__name__} of model.architecture cannot do it; set it to false"
                ) from error

    def _run(self, block: nn.Module, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        return checkpoint(block, x, use_reentrant=False) if self.checkpointing and torch.is_grad_enabled() else block(x)

    def _kept(self, tokens: Float[Tensor, "B L C"], keep: Int[Tensor, "B K"] | None) -> Float[Tensor, "B K2 C"]:
        if keep is None:
            return tokens
        assert self.walk is not None
        prefix, patches = tokens.tensor_split((self.walk.num_prefix,), dim=1)
        return torch.cat((prefix, patches.take_along_dim(keep[:, :, None], 1)), 1)

    def _probe(self, image_size_px: tuple[int, int]) -> tuple[tuple[int, int], int]:
        patch_px = _patch_px(self.tower, self.block)
        if patch_px and (image_size_px[0] % patch_px[0] or image_size_px[1] % patch_px[1]):
            raise ModelError(f"model.image_size_px={_by(image_size_px)}: not a multiple of the patch size {_by(patch_px)}; choose one")
        parameter = next(self.tower.parameters())
        training = self.tower.training
        self.tower.eval()
        images = torch.zeros(1, 3, *image_size_px, device=parameter.device, dtype=parameter.dtype)
        try:
            if self.block < 1:
                raise IndexError(self.block)
            with torch.no_grad():
                output = self.tower.forward_intermediates(images, indices=[self.block - 1])
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(self._why_not(images)) from error
        finally:
            self.tower.train(training)
        _, channels, rows, columns = output["image_intermediates"][0].shape
        if image_size_px[0] % rows or image_size_px[1] % columns:
            raise ModelError(
                f"model.image_size_px={_by(image_size_px)}: not a multiple of the grid of {rows} x {columns} patches; "
                "choose a multiple of the patch size"
            )
        return (rows, columns), channels

    def _why_not(self, images: Float[Tensor, "1 3 H W"]) -> str:
        """Why there are no patch features after ``block``."""
        name = type(self.tower).__name__
        try:
            with torch.no_grad():
                depth = len(self.tower.forward_intermediates(images)["image_intermediates"])
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return f"model.architecture: patch features cannot be read from {name}; choose a vision transformer"
        if not 1 <= self.block <= depth:
            return f"pta.block={self.block}: the image tower has {depth} blocks, counted from 1; choose one, at most pta.block={depth}"
        return (
            f"pta.block={self.block}: patch features cannot be read from {name} after this block; take its last one, pta.block={depth}, "
            "or choose a vision transformer for model.architecture"
        )


def _by(size_px: Sequence[int]) -> str:
    """A side, or height x width where they differ."""
    return " x ".join(map(str, dict.fromkeys(size_px)))


def _patch_px(tower: Any, block: int) -> tuple[int, int] | None:
    """Height and width of a patch after the block, where the tower tells: open_clip's transformers and timm's models do."""
    if hasattr(tower, "patch_size"):
        return tower.patch_size
    stages = getattr(getattr(tower, "trunk", None), "feature_info", None)
    return (stages[min(block, len(stages)) - 1]["reduction"],) * 2 if stages else None


class Walk(Protocol):
    """A vision transformer taken apart. Every part is run inside the image tower's own forward, as FSDP wants it."""

    blocks: Sequence[nn.Module]
    num_prefix: int

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        """Patch embeddings, each of its own pixels alone."""

    def place(self, patches: Float[Tensor, "B P C"]) -> Float[Tensor, "B L C"]:
        """Class token, position embeddings, norm."""

    def head(self, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B D"]:
        """Norm, pooling, projection."""


class OpenClipWalk:
    """open_clip's own vision transformer, with any of its pools."""

    def __init__(self, tower: open_clip.transformer.VisionTransformer):
        self.tower: Any = tower
        self.blocks, self.num_prefix = tower.transformer.resblocks, 1

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        return self.tower.conv1(images).flatten(2).mT

    def place(self, patches: Float[Tensor, "B P C"]) -> Float[Tensor, "B L C"]:
        class_token = self.tower.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return self.tower.ln_pre(torch.cat((class_token, patches), 1) + self.tower.positional_embedding.to(patches.dtype))

    def head(self, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B D"]:
        pooled = self.tower._pool(tokens)[0]
        return pooled if self.tower.proj is None else pooled @ self.tower.proj


class TimmWalk:
    """timm's vision transformer, behind open_clip's adapter."""

    def __init__(self, tower: open_clip.timm_model.TimmModel, patch_grid: tuple[int, int]):
        self.tower: Any = tower
        self.patch_grid = patch_grid
        self.blocks, self.num_prefix = tower.trunk.blocks, tower.trunk.num_prefix_tokens

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        return self.tower.trunk.patch_embed(images).flatten(1, -2)

    def place(self, patches: Float[Tensor, "B P C"]) -> Float[Tensor, "B L C"]:
        on_grid = patches.unflatten(1, self.patch_grid) if self.tower.trunk.dynamic_img_size else patches
        return self.tower.trunk.norm_pre(self.tower.trunk._pos_embed(on_grid))

    def head(self, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B D"]:
        return self.tower.head(self.tower.trunk.forward_head(self.tower.trunk.norm(tokens)))


def walk_of(tower: nn.Module, patch_grid: tuple[int, int]) -> Walk | None:
    """How to walk the tower; None for one that is no plain vision transformer."""
    if isinstance(tower, open_clip.transformer.VisionTransformer):
        return OpenClipWalk(tower)
    return TimmWalk(tower, patch_grid) if isinstance(getattr(tower, "trunk", None), timm.models.VisionTransformer) else None


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

    def forward(self, tokens: Int[Tensor, "B T"], *, each_token: bool = False) -> Any:
        """Text features (B D, not normalised) and the pooled feature before projection (B E).

        Args:
            each_token: give instead the features of each token (B T E) and which of them are padding (B T, bool); columns of padding alone
                may have been left out at the end.
        """
        if each_token:
            return self._each_token(tokens)
        pooled = self.tower(tokens)
        features = self.projection(pooled) if isinstance(self.projection, nn.Module) else pooled @ self.projection
        return features, pooled

    def _each_token(self, tokens: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """A tower that pools a class token leaves it out, so that T is one less."""
        own = isinstance(self.tower, open_clip.transformer.TextTransformer)  # its mask is of its context length
        pad_id = self.tower.pad_id if own else self.tower.config.pad_token_id
        whole = F.pad(tokens, (0, self.tower.context_length - tokens.shape[1]), value=pad_id) if own else tokens
        self.tower.output_tokens = True
        try:
            features = self.tower(whole)[1][:, : tokens.shape[1]]
        finally:
            self.tower.output_tokens = False
        follows = (tokens != pad_id).flip(1).cummax(1).values.flip(1)  # a token that is no padding; CLIP's "!" is its padding too
        return features, ~follows[:, -features.shape[1] :]

    def blocks(self) -> list[nn.Module]:
        """The repeated transformer blocks; none where a Hugging Face tower keeps them where no one looks."""
        transformer = self.tower.transformer
        for layers in ("resblocks", "layer", "block", "layers"):  # of open_clip; of encoders like BERT, T5, and others
            found = getattr(transformer, layers, None) or getattr(getattr(transformer, "encoder", None), layers, None)
            if found is not None:
                return list(found)
        return []

    def checkpoint_gradients(self) -> None:
        """See :meth:`ImageTower.checkpoint_gradients`."""
        if isinstance(self.tower.transformer, open_clip.transformer.Transformer):
            self.tower.set_grad_checkpointing(True)
        else:
            self.tower.transformer.gradient_checkpointing_enable({"use_reentrant": False})


def open_clip_config(
    architecture: str,
    *,
    text_model: str | None = None,
    text_pretrained: bool = True,
    image_size_px: int | None = None,
    context_length: int | None = None,
) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of what :func:`create_open_clip` builds.

    Raises:
        ModelError: unknown architecture, with the nearest names.
    """
    schema, folder = open_clip.factory.parse_model_name(architecture)
    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        names = {name.lower(): name for name in open_clip.list_models()}
        near = [names[name] for name in difflib.get_close_matches(architecture.lower(), names, 3, cutoff=0.4)]
        raise ModelError(f"model.architecture={architecture}: unknown; nearest: {', '.join(near) or 'none'}")
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
        with _quiet():
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
        if isinstance(error, pickle.UnpicklingError):  # its message advises to load what may run code
            reason = "the weights are no file of PyTorch's tensors or safetensors"
        raise ModelError(
            f"model.architecture={architecture}{f', model.pretrained={pretrained}' if pretrained else ''}"
            f"{f', model.text_model={text_model}' if text_model else ''}: cannot be loaded: {reason}"
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
