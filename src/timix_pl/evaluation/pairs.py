"""Pairs in batches of a fixed number, as the contrastive loss sees them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.randomness import permutation, seed_of
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.model import DualEncoderLike
from timix_pl.metrics.contrastive import pair_losses
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.step import MixStep


class Mixed(NamedTuple):
    """Mixed images: captions ``own`` and ``partner`` by row of the batch, and the share ``lam`` of the own."""

    features: Float[Tensor, "K D"]
    own: Int[Tensor, " K"]
    partner: Int[Tensor, " K"]
    lam: Float[Tensor, " K"]


class EncodedPairs(NamedTuple):
    """The pairs of a batch, on the CPU; ``extra`` holds their other JSON fields, with each one's key."""

    image_features: Float[Tensor, "K D"]
    text_features: Float[Tensor, "K D"]
    logit_scale: float
    mixed: Mixed | None
    extra: list[tuple[str, dict]]

    @property
    def similarities(self) -> Float[Tensor, " K"]:
        """Cosine of each image and its caption."""
        return (self.image_features.double() * self.text_features.double()).sum(1)

    def losses(self) -> Float[Tensor, " K"]:
        """InfoNCE of each pair among those of the batch."""
        return pair_losses(self.image_features, self.text_features, self.logit_scale)


class _Shuffled(Dataset[EvaluationItem]):
    """In an order drawn once, so that what lies together in a shard is no more alike in a batch than the rest."""

    def __init__(self, dataset: Dataset[EvaluationItem]):
        self.dataset = dataset
        self.order = permutation(len(dataset), "pairs")  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> EvaluationItem:
        return self.dataset[int(self.order[number])]


def encode_pairs(
    model: DualEncoderLike,
    dataset: Dataset[EvaluationItem],
    device: torch.device,
    *,
    num_pairs: int,
    batch_size: int,
    num_workers: int = 0,
    mixer: Mixer | None = None,
    what: str,
) -> list[EncodedPairs]:
    """Every image with its first caption, in batches of ``num_pairs`` (the last may be smaller), on every rank; each encoded by one rank.

    Args:
        batch_size: pairs per forward pass, about.
        mixer: how each image is mixed with another one; None: not at all.
        what: what messages call the data set.
    Raises:
        DataError: there are fewer pairs than ``num_pairs``, an image has no caption, or cannot be read.
    """
    if len(dataset) < num_pairs:  # type: ignore[arg-type]
        raise DataError(
            f"`num_pairs={num_pairs}`: {what} has {len(dataset)} pairs, fewer than one batch of these; "  # type: ignore[arg-type]
            "lower `num_pairs`, or give it more pairs"
        )

    def encode(batch: EvaluationBatch) -> EncodedPairs:
        for key, captions in zip(batch.keys, batch.captions, strict=True):
            if not captions:
                raise DataError(f"Sample '{key}' of {what} has no caption. Write one into {key}.txt or {key}.json, or remove the sample.")
        num_parts = max(1, min(-(-len(batch.keys) // batch_size), len(batch.keys) // 2))  # at least two each: a pair needs a partner
        parts = torch.arange(len(batch.keys)).tensor_split(num_parts)
        encoded = [_encode_part(model, batch, part, device, mixer) for part in parts]
        return EncodedPairs(
            torch.cat([pairs.image_features for pairs in encoded]),
            torch.cat([pairs.text_features for pairs in encoded]),
            encoded[0].logit_scale,
            None if encoded[0].mixed is None else Mixed(*map(torch.cat, zip(*(pairs.mixed or () for pairs in encoded), strict=True))),
            list(zip(batch.keys, batch.extra, strict=True)),
        )

    return map_batches(_Shuffled(dataset), encode, batch_size=num_pairs, num_workers=num_workers)


def _encode_part(
    model: DualEncoderLike, batch: EvaluationBatch, rows: Int[Tensor, " k"], device: torch.device, mixer: Mixer | None
) -> EncodedPairs:
    first = int(rows[0])
    tokens = model.tokenizer([batch.captions[row][0] for row in rows.tolist()]).to(device)
    mix = None
    if mixer is not None and len(rows) > 1:
        step = seed_of("pairs", batch.keys[0])  # each batch has windows of its own, whichever rank it comes to
        own, partner = mixed_rows(len(rows), len(rows), 1.0, seed=0, step=step, first=0)
        chosen = MixRows(rows=own, partners=partner, seed=0, step=step, first=0, device=device)
        mix = MixStep(mixer=mixer, compute="extra", chosen=chosen)
    encoded = model(batch.images[rows].to(device), tokens, mix=mix)
    mixed = None
    if mix is not None:
        plan = encoded.plan
        mixed = Mixed(
            encoded.mixed_image_features.float().cpu(), first + plan.rows.cpu(), first + plan.partners.cpu(), plan.lam.float().cpu()
        )
    scale = float(encoded.logit_scale)
    return EncodedPairs(encoded.image_features.float().cpu(), encoded.text_features.float().cpu(), scale, mixed, [])
