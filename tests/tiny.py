"""What tests train on: a model of three blocks on a 4 x 6 patch grid, and batches and shards for it."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

from timix_pl.core.sample import Region
from timix_pl.core.types import MixPlan, PairBatch, RegionBatch
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.mosaic import draw_mosaics
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import DualEncoder

open_clip.add_model_config(Path(__file__).parent / "architectures")


def read_once(tokenizer_class: type) -> None:
    """From now on, tokenizers of a class share the vocabulary: to read it takes longer than to build a tiny model."""
    read, found = tokenizer_class.__init__, {}  # type: ignore[misc]

    def share(self, *args, **options):
        key = repr((args, options))
        if key not in found:
            read(self, *args, **options)
            found[key] = dict(vars(self))
        vars(self).update(found[key])

    tokenizer_class.__init__ = share  # type: ignore[misc]


read_once(open_clip.SimpleTokenizer)

IMAGE_SIZE_PX, GRID = (32, 48), (4, 6)
WORDS = ["red", "blue", "green", "small", "large", "ring", "square", "circle", "left", "right", "of", "a", "the", "over", "dotted"]


def tiny_model(*, seed: int = 0, **options) -> DualEncoder:
    """PTA after block 2 of 3."""
    torch.manual_seed(seed)
    return DualEncoder.create("test-nano", **({"pta_block": 2} | options))


def random_images(num_images: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (num_images, 3, *IMAGE_SIZE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def random_captions(num_captions: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(num_captions)]


def mix_rows(rows: torch.Tensor, partners: torch.Tensor, seed: int, step: int, first: int, device: str = "cpu") -> MixRows:
    return MixRows(rows=rows, partners=partners, seed=seed, step=step, first=first, device=torch.device(device))


def mix_step(
    mixer: Mixer,
    compute: str,
    rows: torch.Tensor,
    partners: torch.Tensor,
    seed: int,
    step: int,
    first: int,
    joined_tokens: torch.Tensor | None = None,
    planned: MixPlan | None = None,
    device: str = "cpu",
) -> MixStep:
    chosen = mix_rows(rows, partners, seed, step, first, device)
    return MixStep(mixer=mixer, compute=compute, chosen=chosen, joined_tokens=joined_tokens, planned=planned)


def taught_by(mix: MixStep, num_rows: int, group_size: int, *, frac: float = 0.5) -> MixStep:
    """The same mixing with mosaics, of a local batch of ``num_rows``, and the PTA head learns from it."""
    chosen = mix.chosen
    num_mixed = len(chosen.rows) * group_size // num_rows
    place = {"seed": chosen.seed, "step": chosen.step, "first": chosen.first}
    mosaics = draw_mosaics(num_rows, mix.mixer.grid, group_size=group_size, num_mixed=num_mixed, frac=frac, **place)
    return replace(mix, mosaics=mosaics if frac else None, teaches=True)


def random_pairs(model: DualEncoder, num_pairs: int, seed: int, *, first: int = 0, regions: RegionBatch | None = None) -> PairBatch:
    captions = random_captions(num_pairs, seed)
    keys = [f"pair-{seed}-{number}" for number in range(num_pairs)]
    images, tokens = random_images(num_pairs, seed), model.tokenizer(captions)
    return PairBatch(images=images, tokens=tokens, keys=keys, captions=captions, first=first, regions=regions)


def random_regions(model: DualEncoder, num_images: int, num_phrases: int, seed: int) -> RegionBatch:
    """Every image has a phrase, some have more."""
    rng = np.random.default_rng(seed)
    image_index = torch.from_numpy(np.sort(np.r_[np.arange(num_images), rng.integers(0, num_images, num_phrases - num_images)]))
    labels = torch.from_numpy(rng.integers(0, 2, (num_phrases, GRID[0] * GRID[1]))).float()
    phrases = model.tokenizer(random_captions(num_phrases, seed + 1))
    images, keys = random_images(num_images, seed), [f"region-{number}" for number in range(num_images)]
    return RegionBatch(images=images, tokens=phrases, image_index=image_index, patch_labels=labels, keys=keys)


def encoded_image(pixels: np.ndarray, image_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def random_pixels(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth noise, so that JPEG keeps most of it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def write_shards(folder: Path, num_samples: int, *, seed: int = 0, num_regions: int = 0, samples_per_shard: int = 8) -> Path:
    """Samples s0, s1, ...: a PNG of 40 x 60 pixels, two captions, and ``num_regions`` boxes."""
    rng = np.random.default_rng(seed)
    with ShardWriter(folder, samples_per_shard=samples_per_shard) as writer:
        for number in range(num_samples):
            regions = []
            for phrase in random_captions(num_regions, seed + number):
                x, y = rng.uniform(0.05, 0.5, 2)
                regions.append(Region(phrase, (x, y, x + 0.4, y + 0.3)))
            image = encoded_image(random_pixels(40, 60, seed * 1000 + number), "PNG")
            writer.write(f"s{number}", image, "png", captions=random_captions(2, seed * 1000 + number), regions=regions)
    return folder
