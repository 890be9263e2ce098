"""One interface to image towers of open_clip and timm."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import open_clip
import timm
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from timix_pl.core.errors import ModelError


class ImageOutput(NamedTuple):
    """The output of a pass through the image tower; None for features that the pass did not reach.

    ``image_features`` are not L2-normalised. ``patch_features`` are the patch tokens after the PTA block; K is P, or the number of patches
    kept. ``tokens`` are those after the requested block, with the class token first; after block 0 there is no class token yet.
    """

    image_features: Float[Tensor, "B D"] | None
    patch_features: Float[Tensor, "B K C"] | None
    tokens: Float[Tensor, "B L C"] | None


class ImageTower(nn.Module):
    """An open_clip image tower and its patch features after block ``block`` (counted from 1).

    Plain vision transformers (open_clip's own, and timm's ``VisionTransformer``) are run block by block; only they support all arguments of
    :meth:`forward`. Other towers run open_clip's ``forward_intermediates`` and support only ``stop=block``.

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
                f"`architecture`: {type(tower).__name__} has no forward_intermediates, so PTA cannot read patch features from it"
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

        Blocks are counted from 1. Block 0 means the patch embeddings, before class token and positions are added.

        Args:
            x: images (B 3 H W), normalised; with ``start``, tokens (B L C).
            start: the block after which the tokens ``x`` were taken.
            stop: the last block to run; None: run all blocks and the head.
            tokens_after: return the tokens after this block.
            keep: the patches that go through the blocks, ascending. The others are dropped after position embeddings were added.
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
        """The transformer blocks; empty for towers of an unknown structure."""
        return list(self.walk.blocks if self.walk is not None else getattr(getattr(self.tower, "trunk", None), "blocks", ()))

    def checkpoint_gradients(self) -> None:
        """From now on, recompute each block in the backward pass instead of storing its activations.

        Raises:
            ModelError: the tower does not support this.
        """
        self.checkpointing = True
        if self.walk is None:
            try:
                self.tower.trunk.set_grad_checkpointing(True)
            except (AttributeError, AssertionError) as error:
                raise ModelError(
                    f"`checkpoint_gradients()`: {type(self.tower).__name__} cannot recompute its blocks; leave it out, "
                    "or choose another `architecture`"
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
            raise ModelError(f"`image_size_px={_by(image_size_px)}`: not a multiple of the patch size {_by(patch_px)}; choose one")
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
                f"`image_size_px={_by(image_size_px)}`: not a multiple of the grid of {rows} x {columns} patches; "
                "choose a multiple of the patch size"
            )
        return (rows, columns), channels

    def _why_not(self, images: Float[Tensor, "1 3 H W"]) -> str:
        """The error message if there are no patch features after ``block``."""
        name = type(self.tower).__name__
        try:
            with torch.no_grad():
                depth = len(self.tower.forward_intermediates(images)["image_intermediates"])
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return f"`architecture`: patch features cannot be read from {name}; choose a vision transformer"
        if not 1 <= self.block <= depth:
            return f"`block={self.block}`: the image tower has {depth} blocks, counted from 1; choose one, at most `block={depth}`"
        return (
            f"`block={self.block}`: patch features cannot be read from {name} after this block; take its last one, `block={depth}`, "
            "or choose a vision transformer as `architecture`"
        )


def _by(size_px: Sequence[int]) -> str:
    """One side if the image is square, else height x width."""
    return " x ".join(map(str, dict.fromkeys(size_px)))


def _patch_px(tower: Any, block: int) -> tuple[int, int] | None:
    """Height and width of a patch after the block; None if unknown. open_clip's transformers and timm's models provide it."""
    if hasattr(tower, "patch_size"):
        return tower.patch_size
    stages = getattr(getattr(tower, "trunk", None), "feature_info", None)
    return (stages[min(block, len(stages)) - 1]["reduction"],) * 2 if stages else None


class Walk(Protocol):
    """The parts of a vision transformer. They must be run inside the image tower's forward pass, because FSDP requires that."""

    blocks: Sequence[nn.Module]
    num_prefix: int

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        """Compute patch embeddings, each from its own pixels only."""

    def place(self, patches: Float[Tensor, "B P C"]) -> Float[Tensor, "B L C"]:
        """Add the class token and position embeddings, and normalise."""

    def head(self, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B D"]:
        """Normalise, pool and project."""


class OpenClipWalk:
    """open_clip's own vision transformer, with any of its pooling types."""

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
    """The parts of the tower; None if it is not a plain vision transformer."""
    if isinstance(tower, open_clip.transformer.VisionTransformer):
        return OpenClipWalk(tower)
    return TimmWalk(tower, patch_grid) if isinstance(getattr(tower, "trunk", None), timm.models.VisionTransformer) else None
