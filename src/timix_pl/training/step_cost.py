"""What a training step costs: FLOPs and kept activations, counted on tensors that have shapes and no memory."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from timix_pl.core.types import MixPlan, RegionBatch, TaskBatch
from timix_pl.mixing.mixer import Mixer, MixRows
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import DualEncoder, Encoded
from timix_pl.models.fine_tuned import FineTuned
from timix_pl.models.patch_dropout import PatchDropout


class StepShape(NamedTuple):
    """How much of everything a step, or this rank's part of it, holds."""

    num_pairs: float
    num_mixed: float = 0
    num_region_images: float = 0
    num_phrases: float = 0


class StepFlops(NamedTuple):
    """FLOPs of one of each, forward and backward; two per multiply-add.

    Counted by PyTorch in the model's own forward pass, PTA head included. What carries a gradient counts three times: its backward pass is
    taken as twice the forward one. The logits of the contrastive loss are left out, and so is what gradient checkpointing or accumulation
    computes again: it is work of the machine, not of the model (Chowdhery et al. 2022, appendix B).
    """

    pair: float
    mixed_image: float
    region_image: float
    phrase: float

    def of(self, shape: StepShape) -> float:
        """FLOPs of a step."""
        return sum(flops * count for flops, count in zip(self, shape, strict=True))


NO_FLOPS = StepFlops(0.0, 0.0, 0.0, 0.0)


def count_flops(model: DualEncoder, mixer: Mixer | None, compute: str = "extra") -> StepFlops:
    """Count what one pair, mixed image, region image and phrase cost.

    Args:
        model: on any device, ``meta`` too; its weights are not looked at.
        mixer, compute: the strategy and its mode; None: plain CLIP.
    """

    def forward(shape: StepShape) -> float:
        with _Shapes(model) as shapes, _ForwardAndBackward() as counter:
            shapes.forward(shape, mixer, compute)
        return counter.total

    pair = forward(StepShape(2)) / 2
    mixed = forward(StepShape(2, num_mixed=2)) / 2 - pair if mixer is not None else 0.0
    if model.pta is None:
        return StepFlops(pair, mixed, 0.0, 0.0)
    one, two = forward(StepShape(2, 0, 1, 1)), forward(StepShape(2, 0, 1, 2))
    return StepFlops(pair, mixed, 2 * one - two - 2 * pair, two - one)


def count_kept(model: DualEncoder, mixer: Mixer | None, compute: str, shape: StepShape, *, autocast: bool) -> int:
    """Bytes that a step's forward pass keeps for its backward pass, weights and the contrastive loss left out.

    Args:
        model: on any device, ``meta`` too; its weights are not looked at. Attention is taken to be a fused kernel.
        shape: of what a rank takes through the model at once, in whole numbers.
        autocast: whether the towers compute in bf16 on fp32 weights.
    """
    with _Shapes(model) as shapes, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return _bytes_kept(lambda: shapes.forward(shape, mixer, compute), model.blocks(), shapes.tensors.values())


class TaskShape(NamedTuple):
    """How much a fine-tuning step, or this rank's part of it, holds: images, and the items that are learnt of them."""

    num_images: float
    num_items: float


class TaskFlops(NamedTuple):
    """FLOPs of one image and of one item, forward and backward, as in :class:`StepFlops`. The loss is counted too."""

    image: float
    item: float

    def of(self, shape: TaskShape) -> float:
        """FLOPs of a step."""
        return self.image * shape.num_images + self.item * shape.num_items


def count_task_flops(model: FineTuned, item: dict[str, Tensor]) -> TaskFlops:
    """Count what one image and one item cost.

    Args:
        model: on any device, ``meta`` too; its weights are not looked at.
        item: the tensors of a batch of one item.
    """

    def forward(shape: TaskShape) -> float:
        with _Shapes(model) as shapes, _AllMarked(), _ForwardAndBackward() as counter:
            shapes.forward_task(shape, item)
        return counter.total

    two, four = forward(TaskShape(2, 2)), forward(TaskShape(2, 4))
    return TaskFlops(two - four / 2, (four - two) / 2)


def count_task_kept(model: FineTuned, item: dict[str, Tensor], shape: TaskShape, *, autocast: bool) -> int:
    """Bytes that a fine-tuning step's forward pass keeps for its backward pass, weights left out; see :func:`count_kept`."""
    with _Shapes(model) as shapes, _AllMarked(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return _bytes_kept(lambda: shapes.forward_task(shape, item), model.blocks(), shapes.tensors.values())


class _Shapes:
    """The model and its inputs as shapes alone."""

    def __init__(self, model: DualEncoder | FineTuned):
        self.model: Any = model
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.tensors: dict[str, Tensor] = {}

    def __enter__(self) -> "_Shapes":
        self.mode.__enter__()
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            self.tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).requires_grad_(
                isinstance(tensor, nn.Parameter) and tensor.requires_grad
            )
        return self

    def __exit__(self, *error: Any) -> None:
        self.mode.__exit__(*error)

    def forward(self, shape: StepShape, mixer: Mixer | None, compute: str) -> Encoded:
        """One forward pass of a training step."""
        num_pairs, num_mixed, num_region_images, num_phrases = map(int, shape)
        context_length, num_patches = self.model.tokenizer(["a"]).shape[1], self.model.patch_grid[0] * self.model.patch_grid[1]

        def tokens(count: int) -> Tensor:
            return torch.zeros(count, context_length, dtype=torch.long)

        mix = regions = None
        if mixer is not None and num_mixed:
            with unset_fake_temporarily():
                rows = torch.arange(num_mixed)
                partners = rows.roll(-1)
            chosen = MixRows(rows=rows, partners=partners, seed=0, step=0, first=0, device=torch.device("cpu"))
            joined = tokens(num_mixed) if mixer.joins_captions else None
            mix = _RealPlan(mixer=mixer, compute=compute, chosen=chosen, joined_tokens=joined)
        if num_region_images:
            index, labels = torch.zeros(num_phrases, dtype=torch.long), torch.empty(num_phrases, num_patches)
            regions = RegionBatch(self._images(num_region_images), tokens(num_phrases), index, labels, [])
        arguments = (self._images(num_pairs), tokens(num_pairs))
        dropout = PatchDropout(self.model.patch_dropout, 0, 0, 0) if self.model.patch_dropout else None
        return torch.func.functional_call(self.model, self.tensors, arguments, {"mix": mix, "regions": regions, "dropout": dropout})

    def forward_task(self, shape: TaskShape, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """One forward pass of a fine-tuning step, the loss included."""
        num_images, num_items = map(int, shape)
        items = {name: torch.empty(num_items, *tensor.shape[1:], dtype=tensor.dtype) for name, tensor in item.items()}
        index = torch.zeros(num_items, dtype=torch.long)
        batch = TaskBatch(self._images(num_images), index, [], items, {}, [], 0, [])
        return torch.func.functional_call(self.model, self.tensors, (batch,))

    def _images(self, count: int) -> Tensor:
        return torch.empty(count, 3, *self.model.image_size_px, dtype=torch.uint8)


class _AllMarked(TorchDispatchMode):
    """Takes a mask that picks rows to pick all of them: how many it does cannot be told from shapes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            return args[0].flatten(0, args[1][0].ndim - 1).clone()
        return func(*args, **(kwargs or {}))


class _RealPlan(MixStep):
    """Plans that need no scores look at the numbers of rows, so these are no shapes alone."""

    def plan(self, scores: Tensor | None = None) -> MixPlan:
        if self.mixer.needs_scores:
            return super().plan(scores)
        with unset_fake_temporarily():
            return super().plan()


class _ForwardAndBackward(TorchDispatchMode):
    """Counts the FLOPs of forward passes, those of what carries a gradient three times."""

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
    """Bytes of the different storages that autograd keeps during ``run``, without those of the tensors given.

    Checkpointed blocks keep what goes into them, which autograd does not tell.
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
