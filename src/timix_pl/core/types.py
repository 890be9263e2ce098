"""The shared words: what travels between the rooms.

Axis letters: B local batch, G global batch, M mixed images, N region images, R phrases, P patches, T tokens, D embedding, H and W image
sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from timix_pl.core.metric import Metric


@dataclass(frozen=True)
class Region:
    """A phrase and its box: x0, y0, x1, y1 as shares of the image's width and height, 0 to 1."""

    phrase: str
    bbox_xyxy_norm: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard: the encoded image and everything that its JSON says.

    ``extra`` holds the JSON's other fields (source, label, what was done to a scene).
    """

    key: str
    image: bytes
    image_ext: str
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    extra: dict = field(default_factory=dict)
    shard: str = ""


class Batch(NamedTuple):
    """This rank's pairs of one step.

    ``first`` is the position of row 0 in the global batch; ``shards`` names each sample's file. ``problems`` tells of the samples, pairs
    and regions alike, that could not be used, or not whole: stream, shard, key, reason and outcome of each. The outcome is "replaced" (then
    the position in the stream is told too), "passed over" or "used in part".
    """

    images: UInt8[Tensor, "B 3 H W"]
    tokens: Int[Tensor, "B T"]
    keys: list[str]
    captions: list[str]
    first: int
    problems: list[dict[str, Any]]
    shards: tuple[str, ...] = ()


class RegionBatch(NamedTuple):
    """This rank's region images of one step: images once each, phrases pointing at them."""

    images: UInt8[Tensor, "N 3 H W"]
    tokens: Int[Tensor, "R T"]
    image_index: Int[Tensor, " R"]
    patch_labels: Float[Tensor, "R P"]
    keys: list[str]
    shards: tuple[str, ...] = ()


class TaskBatch(NamedTuple):
    """This rank's share of a fine-tuning step: images once each, and the items (questions, captions) that point at them.

    ``image_index`` is ascending; ``items_per_image`` says the same as numbers, for those who cut the batch. Every tensor of ``items`` has
    one row per item. ``num_items`` counts the items of each term of the task's loss. The rest is as in ``Batch``.
    """

    images: UInt8[Tensor, "B 3 H W"]
    image_index: Int[Tensor, " N"]
    items_per_image: list[int]
    items: dict[str, Tensor]
    num_items: dict[str, int]
    keys: list[str]
    first: int
    problems: list[dict[str, Any]]
    shards: tuple[str, ...] = ()


class Windows(NamedTuple):
    """Square windows on the patch grid: top-left corners (row, column) in patches, one per mixed image."""

    side: int
    target: Int[Tensor, "M 2"]
    source: Int[Tensor, "M 2"]


class MixPlan(NamedTuple):
    """What to mix: row ``rows[m]`` of the local batch with row ``partners[m]``; ``lam[m]`` is the share that stays its own.

    ``windows`` is None where whole images are blended (Mixup, MixGen).
    """

    rows: Int[Tensor, " M"]
    partners: Int[Tensor, " M"]
    lam: Float[Tensor, " M"]
    windows: Windows | None


class LossOutput(NamedTuple):
    """A loss and its named, unweighted terms, all scalars."""

    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class EvaluationResult(NamedTuple):
    """What an evaluation found; the same on every rank.

    ``metrics`` by name (``retrieval/image_to_text/recall_at_1``) and, for the same names where it is known, the level of ``chance``.
    ``examples``, by the evaluation's name, are shown in the report: what JSON can hold, and images (uint8 tensors, 3 H W) anywhere in it.
    ``descriptions``, by the names of ``metrics``: a metric without one is shown as a plain number, of which neither direction is better.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    examples: Mapping[str, list[dict[str, Any]]] = MappingProxyType({})
    descriptions: Mapping[str, Metric] = MappingProxyType({})
