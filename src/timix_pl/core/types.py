"""The data types that packages exchange. Those that need no torch are in :mod:`timix_pl.core.sample`.

Axis letters: B local batch, G global batch, M mixed images, N region images, R phrases, P patches, T tokens, D embedding, H and W image
sides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils._pytree import register_dataclass

from timix_pl.core.metric import Metric


@dataclass(kw_only=True)
class OnDevice:
    """A dataclass whose tensors, including nested ones, move together. The loader and Lightning call these methods."""

    def to(self, device: torch.device) -> Self:
        """A copy on a device; the copies are not waited for."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """A copy in page-locked memory."""
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
    """This rank's samples of one step. Subclasses add texts and labels.

    Args:
        images: one per sample.
        keys: of the samples.
        first: position of row 0 in the global batch.
        problems: one entry for each sample that could not be used, or only in part: stream, shard, key, reason and outcome. The outcome is
            "replaced" (then the entry also has the position in the stream), "passed over" or "used in part".
        shards: the shard of each sample.
    """

    varies: ClassVar[bool] = False
    """Whether the number of items differs from batch to batch, which fragments the CPU's memory."""

    images: UInt8[Tensor, "B 3 H W"]
    keys: list[str]
    first: int
    problems: list[dict[str, Any]] = field(default_factory=list)
    shards: tuple[str, ...] = ()

    def split(self, size: int) -> list[Self]:
        """Split the batch into parts of ``size`` samples; the last one may be smaller."""
        return [self._part(slice(start, start + size)) for start in range(0, len(self.images), size)]

    def _part(self, rows: slice, **more: Any) -> Self:
        own = {"images": self.images[rows], "keys": self.keys[rows], "first": self.first + rows.start, "shards": self.shards[rows]}
        return replace(self, **own, **more)

    def model_input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model's forward pass."""
        raise NotImplementedError

    def num_items(self) -> dict[str, int]:
        """The number of items of each loss term that is a sum over items."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """The count of each part of the step; see :class:`timix_pl.training.step_cost.Workload`."""
        raise NotImplementedError


@dataclass(kw_only=True)
class RegionBatch(OnDevice):
    """This rank's region images of one step, and their phrases. ``image_index`` is the image of each phrase."""

    images: UInt8[Tensor, "N 3 H W"]
    tokens: Int[Tensor, "R T"]
    image_index: Int[Tensor, " R"]
    patch_labels: Float[Tensor, "R P"]
    keys: list[str]
    shards: tuple[str, ...] = ()


@dataclass(kw_only=True)
class PairBatch(Batch):
    """Image-text pairs and, in some steps, region images. When a batch is split, the last part gets the region images."""

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
        """The number of patch labels: phrases times patches."""
        return {} if self.regions is None else {"patch_text": self.regions.patch_labels.numel()}

    def counts(self) -> dict[str, int]:
        """See :class:`Batch`."""
        regions = {} if self.regions is None else {"region_image": len(self.regions.images), "phrase": len(self.regions.tokens)}
        return {"pair": len(self.images)} | regions


@dataclass(kw_only=True)
class ItemBatch(Batch):
    """Images of a fine-tuning step, and their items (questions or captions).

    Args:
        image_index: the image of each item, ascending.
        items_per_image: the number of items of each image.
        items: tensors with one row per item.
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
        """The numbers of the whole batch, even for a part of it."""
        return self.items_of_term

    def counts(self) -> dict[str, int]:
        """See :class:`Batch`."""
        return {"image": len(self.images), "item": len(self.image_index)}


class Windows(NamedTuple):
    """Square windows on the patch grid: top-left corners (row, column) in patches, one per mixed image."""

    side: int
    target: Int[Tensor, "M 2"]
    source: Int[Tensor, "M 2"]


class Mosaics(NamedTuple):
    """Mixed images that show their partner in random blocks of patches, at the same place: numbers of mixed images, and their patches."""

    which: Int[Tensor, " K"]
    inside: Bool[Tensor, "K P"]


class MixPlan(NamedTuple):
    """Which rows to mix: ``rows[m]`` of the local batch with ``partners[m]``. ``lam[m]`` is the share that row ``rows[m]`` keeps.

    ``windows`` is None if whole images are blended (Mixup, MixGen) and if all mixed images are mosaics. A mosaic has no window, though
    ``windows`` has a row for it.
    """

    rows: Int[Tensor, " M"]
    partners: Int[Tensor, " M"]
    lam: Float[Tensor, " M"]
    windows: Windows | None
    mosaics: Mosaics | None = None


@dataclass(kw_only=True)
class Seen:
    """A batch of pairs and the features that the model has computed, for the loss terms that run in its forward pass.

    Args:
        encoder: the dual encoder; a term may call its towers again.
        images: normalised pixels, before any mixing.
        tokens: of the captions.
        plan: with ``compute=replace``, the rows with features of mixed images; None: there are no such rows.
        patch_features: after block ``pta.block``, of the patches ``keep``.
        keep: numbers of the patches that patch dropout kept; None: all patches in their order.
        image_features, text_features: L2-normalised.
        pooled_text: the text tower's pooled feature before the projection.
    """

    encoder: Any
    images: Float[Tensor, "B 3 H W"]
    tokens: Int[Tensor, "B T"]
    plan: MixPlan | None
    patch_features: Float[Tensor, "B K C"]
    keep: Int[Tensor, "B K"] | None
    image_features: Float[Tensor, "B D"]
    text_features: Float[Tensor, "B D"]
    pooled_text: Float[Tensor, "B E"]


# FSDP2 casts the tensors in a module's input; registered, it finds those inside of Seen.
register_dataclass(Seen)


class LossOutput(NamedTuple):
    """The loss and its named terms before weighting, all scalars."""

    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class EvaluationResult(NamedTuple):
    """The results of an evaluation, the same on every rank.

    ``metrics``: values by name, such as ``retrieval/image_to_text/recall_at_1``. ``chance``: the level of chance by the same names, where
    known. ``examples``: for the report, by the name of the evaluation; JSON values that may contain images (uint8 tensors, 3 H W).
    ``descriptions``: by the names of ``metrics``. A metric without one is shown as a plain number of which neither direction is better.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    examples: Mapping[str, list[dict[str, Any]]] = MappingProxyType({})
    descriptions: Mapping[str, Metric] = MappingProxyType({})
