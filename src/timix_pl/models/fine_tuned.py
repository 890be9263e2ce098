"""Base class of models that fine-tune a pre-trained dual encoder for a task."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from timix_pl.core.errors import ModelError
from timix_pl.core.types import ItemBatch
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.encoded import Encoded


class FineTuned(nn.Module):
    """An encoder, frozen or trained, and a head that reads its patch and token features.

    A subclass implements :meth:`sums`: the terms of its loss, each summed over the batch's items, in fp32.

    Args:
        encoder: the towers. Their parameters are frozen or made trainable in place.
        head: the new part.
        reads: the towers whose features the head reads: ``image``, ``text`` or both.
        towers: which parts of these towers are trained: ``frozen`` (none), ``last`` (the last blocks) or ``all``.
        last_blocks: with ``last``, the number of blocks of each tower.
        block: block of the image tower, counted from 1, after which patch features are taken. None: the last one; for towers that are not
            plain vision transformers, the encoder's PTA block.
    Raises:
        ModelError: the image tower has no such block, or a tower has fewer than ``last_blocks`` blocks.
    """

    patch_dropout = 0.0
    """The heads read all patches."""

    def __init__(
        self,
        encoder: DualEncoder,
        head: nn.Module,
        *,
        reads: Sequence[str] = ("image", "text"),
        towers: str = "frozen",
        last_blocks: int = 2,
        block: int | None = None,
    ):
        super().__init__()
        self.encoder, self.head, self.reads = encoder, head, tuple(reads)
        self.block = _feature_block(encoder, block)
        self._tuned = self._tuned_parts(towers, last_blocks)
        encoder.requires_grad_(False)
        for part in self._tuned:
            part.requires_grad_(True)
        self._freeze_what_is_not_read()
        self.tokenizer, self.image_size_px, self.patch_grid = encoder.tokenizer, encoder.image_size_px, encoder.patch_grid
        self.train()

    def forward(self, batch: ItemBatch) -> Encoded:
        """The terms of the loss, as :attr:`Encoded.sums`."""
        # No head is marked as touched, because a batch may lack the items that a part of the head is for.
        return Encoded(sums=self.sums(batch))

    def sums(self, batch: ItemBatch) -> dict[str, Float[Tensor, ""]]:
        """The sum over the batch's items, for each term of the loss."""
        raise NotImplementedError

    def patch_features(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B P C"]:
        """The patches' features after :attr:`block`, not normalised."""
        image = self.encoder.image
        if image.walk is None:
            return image(self.encoder.normalise(images), stop=self.block).patch_features
        tokens = image(self.encoder.normalise(images), stop=self.block, tokens_after=self.block).tokens
        return tokens[:, image.walk.num_prefix :]

    def token_features(self, tokens: Int[Tensor, "N T"]) -> tuple[Float[Tensor, "N T E"], Bool[Tensor, "N T"]]:
        """The text tower's feature of each token, and which tokens are padding."""
        return self.encoder.text(tokens, each_token=True)

    def train(self, mode: bool = True) -> "FineTuned":
        """Set the mode of the head and of the trained parts. Frozen parts stay in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        for part in self._tuned:
            part.train(mode)
        return self

    def parts(self) -> dict[str, nn.Module]:
        """The towers and the heads, by name."""
        return self.encoder.parts() | self.heads()

    def heads(self) -> dict[str, nn.Module]:
        """Parts that a step may not use."""
        return {"head": self.head}

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of both towers."""
        return self.encoder.blocks()

    def checkpoint_gradients(self) -> None:
        """See :meth:`DualEncoder.checkpoint_gradients`; the head keeps its activations."""
        self.encoder.checkpoint_gradients()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """See :meth:`DualEncoder.compile_blocks`; the head is not compiled."""
        self.encoder.compile_blocks(backend)

    @property
    def pta(self) -> nn.Module | None:
        """The encoder's PTA head."""
        return self.encoder.pta

    def encode_image(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """See :meth:`DualEncoder.encode_image`. Fine-tuning changes the features."""
        return self.encoder.encode_image(images)

    def encode_text(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """See :meth:`DualEncoder.encode_text`."""
        return self.encoder.encode_text(tokens)

    def patch_scores(self, images: UInt8[Tensor, "B 3 H W"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B h w"]:
        """See :meth:`DualEncoder.patch_scores`."""
        return self.encoder.patch_scores(images, tokens)

    def _tuned_parts(self, towers: str, last_blocks: int) -> list[nn.Module]:
        read = {name: getattr(self.encoder, name) for name in self.reads}
        if towers != "last":
            return list(read.values()) if towers == "all" else []
        parts = []
        for name, tower in read.items():
            blocks = tower.blocks()
            if name == "image" and blocks:
                blocks = blocks[: self.block]
            if not blocks:
                raise ModelError(
                    f"`towers=last`: the {name} tower, {type(tower.tower).__name__}, has no blocks that could be counted; "
                    "choose `towers=frozen` or `towers=all`"
                )
            if last_blocks > len(blocks):
                raise ModelError(
                    f"`last_blocks={last_blocks}`: of the {name} tower {len(blocks)} blocks are used; choose from 1 to {len(blocks)}, "
                    "or `towers=all`"
                )
            parts += blocks[-last_blocks:]
        return parts

    def _freeze_what_is_not_read(self) -> None:
        """Freeze parameters of trained parts that the head's features do not depend on, such as projections."""
        # DDP waits for the gradient of every trainable parameter.
        tuned = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        if not tuned:
            return
        self.encoder.eval()
        device = self.encoder.weights_like.device
        features = torch.zeros((), device=device)
        if "image" in self.reads:
            features = (
                features + self.patch_features(torch.zeros(1, 3, *self.encoder.image_size_px, dtype=torch.uint8, device=device)).sum()
            )
        if "text" in self.reads:
            features = features + self.token_features(self.encoder.tokenizer(["a"]).to(device))[0].sum()
        for parameter, gradient in zip(tuned, torch.autograd.grad(features, tuned, allow_unused=True), strict=True):
            parameter.requires_grad_(gradient is not None)


AnyModel = DualEncoder | FineTuned
"""The models that a run can train."""


def token_dim(encoder: DualEncoder) -> int:
    """Channels of the text tower's token features."""
    with torch.no_grad():
        features, _ = encoder.text(encoder.tokenizer(["a"]).to(encoder.weights_like.device), each_token=True)
    return features.shape[2]


def _feature_block(encoder: DualEncoder, block: int | None) -> int:
    image = encoder.image
    if image.walk is None:
        if block not in (None, image.block):
            raise ModelError(
                f"`block={block}`: this image tower gives features only after the block of the PTA head, {image.block}; set `block=None`"
            )
        return image.block
    depth = len(image.walk.blocks)
    if block is not None and block > depth:
        raise ModelError(f"`block={block}`: the image tower has {depth} blocks; choose from 1 to {depth}, or `block=None` for the last one")
    return block or depth
