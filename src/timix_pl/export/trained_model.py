"""A trained model for use in Python, with PIL images and strings as inputs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from timix_pl.core.errors import ShapeError
from timix_pl.data.images.decode import upright_rgb
from timix_pl.data.sets.evaluation_set import centre_crop
from timix_pl.models.dual_encoder import DualEncoder

Images = Image.Image | Sequence[Image.Image] | UInt8[Tensor, "B 3 H W"]
Texts = str | Sequence[str] | Int[Tensor, "B T"]


class TrainedModel:
    """A dual encoder in evaluation mode, with the transform and the tokenizer that it was trained with.

    Images are a PIL image, a list of them, or pixels from :meth:`transform` (uint8, B 3 H W). Texts are a string, a list of strings, or
    tokens (B T).

    Args:
        encoder: the model; it is moved to ``device``.
        open_clip_config: open_clip's ``model_cfg`` of its towers.
    """

    def __init__(self, encoder: DualEncoder, open_clip_config: dict[str, Any], device: str | torch.device = "cpu"):
        self.encoder = encoder.to(device).eval().requires_grad_(False)
        self.open_clip_config = open_clip_config
        self.device = torch.device(device)
        self.tokenizer: Any = encoder.tokenizer
        self.image_size_px = encoder.image_size_px

    @property
    def context_length(self) -> int:
        """Tokens per text."""
        return self.tokenizer.context_length

    @property
    def logit_scale(self) -> float:
        """The inverse temperature: logits are this times the cosine, plus :attr:`logit_bias`."""
        return math.exp(min(self.encoder.logit_scale.item(), math.log(self.encoder.max_logit_scale)))

    @property
    def logit_bias(self) -> float | None:
        """The bias that is added to all logits; None if the model has none."""
        return None if self.encoder.logit_bias is None else self.encoder.logit_bias.item()

    def transform(self, image: Image.Image) -> UInt8[Tensor, "3 H W"]:
        """The pixels as in evaluation: upright, RGB, shorter side resized by PIL (bicubic), centre crop."""
        return centre_crop(upright_rgb(image), self.image_size_px)[0]

    @torch.no_grad()
    def encode_image(self, images: Images) -> Float[Tensor, "B D"]:
        """L2-normalised image features."""
        return self.encoder.encode_image(self._pixels(images))

    @torch.no_grad()
    def encode_text(self, texts: Texts) -> Float[Tensor, "B D"]:
        """L2-normalised text features."""
        return self.encoder.encode_text(self._tokens(texts))

    @torch.no_grad()
    def patch_scores(self, images: Images, texts: Texts) -> Float[Tensor, "B h w"]:
        """PTA logits of image i for text i, on the patch grid. A single image is used for all texts, a single text for all images.

        Raises:
            ModelError: the model has no PTA head.
            ShapeError: the numbers of images and texts differ, and neither is 1.
        """
        pixels, tokens = self._pixels(images), self._tokens(texts)
        number = max(len(pixels), len(tokens))
        if not {len(pixels), len(tokens)} <= {1, number}:
            raise ShapeError(f"patch_scores: {len(pixels)} images and {len(tokens)} texts; give as many, or one of either")
        return self.encoder.patch_scores(pixels.expand(number, -1, -1, -1), tokens.expand(number, -1))

    def _pixels(self, images: Images) -> UInt8[Tensor, "B 3 H W"]:
        if isinstance(images, Image.Image):
            images = [images]
        return (images if isinstance(images, Tensor) else torch.stack([self.transform(image) for image in images])).to(self.device)

    def _tokens(self, texts: Texts) -> Int[Tensor, "B T"]:
        if not isinstance(texts, Tensor):
            texts = self.tokenizer([texts] if isinstance(texts, str) else list(texts))
        assert isinstance(texts, Tensor)
        return texts.to(self.device)
