"""Count the FLOPs and the stored activations of a training step, on tensors that have shapes but no memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from timix_pl.core.types import ItemBatch, MixPlan, RegionBatch
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.encoded import Encoded
from timix_pl.models.fine_tuned import FineTuned
from timix_pl.models.patch_dropout import PatchDropout


class Workload(ABC):
    """What a training step computes, in counts of its parts, such as pairs and mixed images.

    Args:
        model: on any device, including ``meta``; the values of its weights are not used.
    """

    parts: Mapping[str, str]
    """Names of the parts, with their descriptions. Samples come first."""
    probes: Sequence[tuple[int, ...]]
    """Counts of the parts, in their order, for forward passes from which the cost of one of each part is computed. Linearly independent."""
    cut: tuple[str, str]
    """The parts whose counts are smaller in a chunk of a batch."""
    not_counted: str = ""
    """The parts of a step that the estimate leaves out, in words."""

    def __init__(self, model: nn.Module):
        self.model: Any = model

    @abstractmethod
    def forward(self, tensors: dict[str, Tensor], counts: Mapping[str, int]) -> Any:
        """One forward pass of a step with these counts. ``tensors``: parameters and buffers as shapes only."""

    def images(self, count: int) -> Tensor:
        """``count`` images, as shapes only."""
        return torch.empty(count, 3, *self.model.image_size_px, dtype=torch.uint8)


class PairWorkload(Workload):
    """A step of pre-training: pairs, mixed images, region images (up to the PTA block) and phrases.

    Args:
        mixer, compute: the strategy and its mode; None: plain CLIP.
        teaches: mixed images teach the PTA head.
    """

    parts = {  # noqa: RUF012
        "pair": "image and caption",
        "mixed_image": "mixed images",
        "region_image": "region images up to the PTA block",
        "phrase": "phrases, at most",
    }
    cut = ("pair", "mixed_image")
    not_counted = "the loss's features and tiles"

    def __init__(self, model: DualEncoder, mixer: Mixer | None, compute: str = "extra", *, teaches: bool = False):
        super().__init__(model)
        self.mixer, self.compute, self.teaches = mixer, compute, teaches
        mixed = ((2, 2, 0, 0),) if mixer is not None else ()
        taught = ((2, 0, 1, 1), (2, 0, 1, 2)) if model.pta is not None else ()
        self.probes = ((2, 0, 0, 0), *mixed, *taught)

    def forward(self, tensors: dict[str, Tensor], counts: Mapping[str, int]) -> Encoded:
        """See :class:`Workload`."""
        num_pairs, num_mixed, num_region_images, num_phrases = (counts.get(part, 0) for part in self.parts)
        context_length, num_patches = self.model.tokenizer(["a"]).shape[1], self.model.patch_grid[0] * self.model.patch_grid[1]

        def tokens(count: int) -> Tensor:
            return torch.zeros(count, context_length, dtype=torch.long)

        mix = regions = None
        if self.mixer is not None and num_mixed:
            with unset_fake_temporarily():
                rows = torch.arange(num_mixed)
                partners = rows.roll(-1)
            chosen = MixRows(rows=rows, partners=partners, seed=0, step=0, first=0, device=torch.device("cpu"))
            joined = tokens(num_mixed) if self.mixer.joins_captions else None
            mix = _RealPlan(mixer=self.mixer, compute=self.compute, chosen=chosen, joined_tokens=joined, teaches=self.teaches)
        if num_region_images:
            index, labels = torch.zeros(num_phrases, dtype=torch.long), torch.empty(num_phrases, num_patches)
            images, phrases = self.images(num_region_images), tokens(num_phrases)
            regions = RegionBatch(images=images, tokens=phrases, image_index=index, patch_labels=labels, keys=[])
        dropout = PatchDropout(self.model.patch_dropout, 0, 0, 0) if self.model.patch_dropout else None
        arguments, options = (self.images(num_pairs), tokens(num_pairs)), {"mix": mix, "regions": regions, "dropout": dropout}
        return torch.func.functional_call(self.model, tensors, arguments, options)


class ItemWorkload(Workload):
    """A step of fine-tuning: images, and items such as questions. The loss is counted too.

    Args:
        item: the tensors of a batch with one item.
        items: a description of the items of an image.
    """

    probes = ((2, 2), (2, 4))
    cut = ("image", "item")

    def __init__(self, model: FineTuned, item: dict[str, Tensor], items: str):
        super().__init__(model)
        self.item, self.parts = item, {"image": "image", "item": items}

    def forward(self, tensors: dict[str, Tensor], counts: Mapping[str, int]) -> Encoded:
        """See :class:`Workload`."""
        num_images, num_items = counts["image"], counts["item"]
        items = {name: torch.empty(num_items, *tensor.shape[1:], dtype=tensor.dtype) for name, tensor in self.item.items()}
        index = torch.zeros(num_items, dtype=torch.long)
        batch = ItemBatch(
            images=self.images(num_images), image_index=index, items_per_image=[], items=items, items_of_term={}, keys=[], first=0
        )
        with _AllMarked():
            return torch.func.functional_call(self.model, tensors, (batch,))


def count_flops(workload: Workload) -> dict[str, float]:
    """FLOPs of one of each part, forward and backward; a multiply-add counts as two.

    PyTorch counts them in the model's own forward pass, including heads. Operations with a gradient count three times, because a backward
    pass costs about twice the forward pass. The logits of the contrastive loss are not included, nor is what gradient checkpointing or
    accumulation recomputes, because MFU counts only the work that the model requires (Chowdhery et al. 2022, appendix B).
    """
    measured = []
    for counts in workload.probes:
        with _shapes_of(workload.model) as tensors, _ForwardAndBackward() as counter:
            workload.forward(tensors, dict(zip(workload.parts, counts, strict=True)))
        measured.append(counter.total)
    costs, *_ = np.linalg.lstsq(np.array(workload.probes, float), np.array(measured), rcond=None)
    return {part: float(round(cost)) for part, cost in zip(workload.parts, costs, strict=True)}


def flops_of(flops: Mapping[str, float], counts: Mapping[str, float]) -> float:
    """FLOPs of a step with these counts of the parts."""
    return sum(flops[part] * count for part, count in counts.items())


def count_kept(workload: Workload, counts: Mapping[str, int], *, autocast: bool) -> int:
    """Bytes that a step's forward pass stores for its backward pass, without weights and the contrastive loss.

    Assumes fused attention kernels.

    Args:
        counts: counts of the parts in one forward pass of a rank.
        autocast: whether the towers compute in bf16 with fp32 weights.
    """
    with _shapes_of(workload.model) as tensors, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return _bytes_kept(lambda: workload.forward(tensors, counts), workload.model.blocks(), tensors.values())


@contextmanager
def _shapes_of(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield the model's parameters and buffers as shapes only. Inside this context, new tensors are shapes only too."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield {
            name: torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(isinstance(tensor, nn.Parameter) and tensor.requires_grad)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }


class _AllMarked(TorchDispatchMode):
    """Treats a boolean mask as selecting all rows, because shapes do not tell how many it selects."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            return args[0].flatten(0, args[1][0].ndim - 1).clone()
        return func(*args, **(kwargs or {}))


class _RealPlan(MixStep):
    """A mixing step with real plans: strategies that need no scores read the values of rows, so shapes are not enough."""

    def plan(self, scores: Tensor | None = None) -> MixPlan:
        if self.mixer.needs_scores:
            return super().plan(scores)
        with unset_fake_temporarily():
            return super().plan()


class _ForwardAndBackward(TorchDispatchMode):
    """Counts the FLOPs of forward passes; operations with a gradient count three times."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            carries = torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
            self.total += formula(*args, **(kwargs or {}), out_val=out) * (3 if carries else 1)
        return out


def _bytes_kept(run: Callable[[], Any], blocks: list[nn.Module], given: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages that autograd saves during ``run``, without those of ``given``.

    Checkpointed blocks store their inputs, which autograd's hooks do not report; they are added.
    """
    not_counted = {tensor.untyped_storage()._cdata for tensor in given}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    def keep_input(block: nn.Module, arguments: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and (arguments[0].requires_grad or any(p.requires_grad for p in block.parameters())):
            keep(arguments[0])

    hooks = [block.register_forward_pre_hook(keep_input) for block in blocks]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    for hook in hooks:
        hook.remove()
    return sum(storage.nbytes() for number, storage in kept.items() if number not in not_counted)
