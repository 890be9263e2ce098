"""The tensors that travel between the rooms. :mod:`timix_pl.core.sample` has what needs no torch.

Axis letters: B local batch, G global batch, M mixed images, N region images, R phrases, P patches, T tokens, D embedding, H and W image
sides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils._pytree import register_dataclass

from timix_pl.core.metric import Metric


@dataclass(kw_only=True)
class OnDevice:
    """A dataclass whose tensors, also those inside of it, move together. The loader and Lightning call these methods."""

    def to(self, device: torch.device) -> Self:
        """On a device; nothing waits for the copies."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """In page-locked memory."""
        return self._with(Tensor.pin_memory)

    def _with(self, move: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{field.name: _moved(getattr(self, field.name), move) for field in fields(self)})


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, OnDevice):
        return value._with(move)
    return {key: _moved(part, move) for key, part in value.items()} if isinstance(value, dict) else value


@dataclass(kw_only=True)
class Batch(OnDevice):
    """This rank's samples of one step. Subclasses add what is learnt of them.

    Args:
        images: one for each sample.
        keys: of the samples.
        first: position of row 0 in the global batch.
        problems: the samples that could not be used, or not whole: stream, shard, key, reason and outcome of each. The outcome is
            "replaced" (then the position in the stream is told too), "passed over" or "used in part".
        shards: each sample's file.
    """

    varies: ClassVar[bool] = False
    """Batches differ in their number of items, so that the allocator of a CPU fragments."""

    images: UInt8[Tensor, "B 3 H W"]
    keys: list[str]
    first: int
    problems: list[dict[str, Any]] = field(default_factory=list)
    shards: tuple[str, ...] = ()

    def split(self, size: int) -> list[Self]:
        """The batch in parts of ``size`` samples; the last may be smaller."""
        return [self._part(slice(start, start + size)) for start in range(0, len(self.images), size)]

    def _part(self, rows: slice, **more: Any) -> Self:
        own = {"images": self.images[rows], "keys": self.keys[rows], "first": self.first + rows.start, "shards": self.shards[rows]}
        return replace(self, **own, **more)

    def model_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model's forward pass."""
        raise NotImplementedError

    def num_items(self) -> dict[str, int]:
        """How many items each term of the loss has that is a sum over items."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """How many of each part the step computes; see :class:`timix_pl.training.step_cost.Workload`."""
        raise NotImplementedError


@dataclass(kw_only=True)
class RegionBatch(OnDevice):
    """This rank's region images of one step: images once each, phrases pointing at them."""

    images: UInt8[Tensor, "N 3 H W"]
    tokens: Int[Tensor, "R T"]
    image_index: Int[Tensor, " R"]
    patch_labels: Float[Tensor, "R P"]
    keys: list[str]
    shards: tuple[str, ...] = ()


@dataclass(kw_only=True)
class PairBatch(Batch):
    """Image-text pairs and, in some steps, region images. A batch that is cut keeps its region images in the last part."""

    tokens: Int[Tensor, "B T"]
    captions: list[str]
    regions: RegionBatch | None = None

    def _part(self, rows: slice, **more: Any) -> Self:
        own = {"tokens": self.tokens[rows], "captions": self.captions[rows]}
        return super()._part(rows, **own, regions=self.regions if rows.stop >= len(self.images) else None, **more)

    def model_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`Batch`."""
        return (self.images, self.tokens), {"regions": self.regions}

    def num_items(self) -> dict[str, int]:
        """Patches under each phrase."""
        return {} if self.regions is None else {"patch_text": self.regions.patch_labels.numel()}

    def counts(self) -> dict[str, int]:
        """See :class:`Batch`."""
        regions = {} if self.regions is None else {"region_image": len(self.regions.images), "phrase": len(self.regions.tokens)}
        return {"pair": len(self.images)} | regions


@dataclass(kw_only=True)
class ItemBatch(Batch):
    """Images of a fine-tuning step, and the items (questions, captions) that point at them.

    Args:
        image_index: the image of each item, ascending.
        items_per_image: the same as numbers.
        items: tensors of one row per item.
        items_of_term: the number of items of each term of the task's loss.
    """

    varies = True

    image_index: Int[Tensor, " N"]
    items_per_image: list[int]
    items: dict[str, Tensor]
    items_of_term: dict[str, int]

    def _part(self, rows: slice, **more: Any) -> Self:
        first_item = sum(self.items_per_image[: rows.start])
        items = slice(first_item, first_item + sum(self.items_per_image[rows]))
        own = {
            "image_index": self.image_index[items] - rows.start,
            "items_per_image": self.items_per_image[rows],
            "items": {name: tensor[items] for name, tensor in self.items.items()},
        }
        return super()._part(rows, **own, **more)

    def model_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`Batch`."""
        return (self,), {}

    def num_items(self) -> dict[str, int]:
        """Those of the whole batch, also in a part of it."""
        return self.items_of_term

    def counts(self) -> dict[str, int]:
        """See :class:`Batch`."""
        return {"image": len(self.images), "item": len(self.image_index)}


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


@dataclass(kw_only=True)
class Seen:
    """What the model has made of some pairs, for the terms that it runs in its forward pass.

    Args:
        encoder: the dual encoder; its towers may be called again.
        images: pixels as the image tower takes them, before any mixing.
        tokens: of the captions.
        plan: with ``compute=replace``, the rows whose features are those of mixed images; None: there are no such rows.
        patch_features: after block ``pta.block``, of all patches or of those that patch dropout kept.
        image_features, text_features: L2-normalised.
        pooled_text: the text tower's pooled feature before its projection.
    """

    encoder: Any
    images: Float[Tensor, "B 3 H W"]
    tokens: Int[Tensor, "B T"]
    plan: MixPlan | None
    patch_features: Float[Tensor, "B K C"]
    image_features: Float[Tensor, "B D"]
    text_features: Float[Tensor, "B D"]
    pooled_text: Float[Tensor, "B E"]


# FSDP2 casts the tensors that it finds in a module's input.
register_dataclass(Seen)


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
