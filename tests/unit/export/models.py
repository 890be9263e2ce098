"""Models to export. No parameter is as it was initialised: a norm that is lost or mixed up shows."""

import open_clip
import torch

from tests import tiny
from timix_pl.export.model_card import Result, RunFacts
from timix_pl.export.trained_model import TrainedModel
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.open_clip import open_clip_config

open_clip.add_model_config(tiny.Path(tiny.__file__).parent / "architectures")

FACTS = RunFacts(
    "a run",
    7,
    224,
    {"model.architecture": "test", "data.train_shards": "shards/train"},
    [Result("retrieval/x", "25.0%", "12.5%", 9, "val"), Result("retrieval/x", "20.0%", "-", 7, "test, 10 samples")],
)
TEXTS = ["a small red ring", "Two dogs, don't run!", "the " * 30]


def trained(
    architecture: str,
    *,
    text_model: str | None = None,
    image_size_px: int | None = None,
    context_length: int | None = None,
    seed: int = 0,
    **options,
) -> TrainedModel:
    generator = torch.Generator().manual_seed(seed)
    size = {"text_model": text_model, "image_size_px": image_size_px, "context_length": context_length}
    encoder = DualEncoder.create(architecture, **({"pta_block": 2} | size | options))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn(parameter.shape, generator=generator))
        encoder.logit_scale.fill_(3.1)
    return TrainedModel(encoder, open_clip_config(architecture, **size))


def images_for(model: TrainedModel, number: int = 3, seed: int = 1) -> torch.Tensor:
    size = (number, 3, *model.image_size_px)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def outputs(model: TrainedModel, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of images and texts, and logits, from a pass as in training."""
    with torch.no_grad():
        encoded = model.encoder(images, tokens)
    logits = encoded.logit_scale * encoded.image_features @ encoded.text_features.T
    return encoded.image_features, encoded.text_features, logits + (0 if encoded.logit_bias is None else encoded.logit_bias)


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
