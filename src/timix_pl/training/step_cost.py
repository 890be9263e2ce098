"""What a training step costs: FLOPs and kept activations, counted on tensors that have shapes and no memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from timix_pl.core.types import MixPlan, RegionBatch
from timix_pl.mixing.step import Mixer, MixStep
from timix_pl.models.dual_encoder import DualEncoder, Encoded
from timix_pl.training.objective import Objective


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


class Kept(NamedTuple):
    """Bytes that the forward pass keeps for the backward pass, weights left out: by the model and by the contrastive loss."""

    activations: int
    loss: int


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


def count_kept(
    model: DualEncoder,
    objective: Objective,
    mixer: Mixer | None,
    compute: str,
    shape: StepShape,
    *,
    num_ranks: int,
    autocast: bool,
) -> Kept:
    """Count what a step's forward pass keeps.

    Args:
        model: on any device, ``meta`` too; its weights are not looked at. Attention is taken to be a fused kernel.
        shape: of this rank, in whole numbers.
        num_ranks: whose features the loss compares with this rank's.
        autocast: whether the towers compute in bf16 on fp32 weights.
    """
    with _Shapes(model) as shapes:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            activations = _bytes_kept(lambda: shapes.forward(shape, mixer, compute), shapes.tensors.values())
        # The loss holds tables of a rank's rows by all ranks' rows: this rank's alone are its square, of which the rest is a multiple.
        encoded = shapes.forward(shape._replace(num_region_images=0, num_phrases=0), mixer, compute)
        leaves = encoded._replace(**{name: x.detach().requires_grad_() for name, x in encoded._asdict().items() if _is_float(x)})
        loss = _bytes_kept(lambda: objective(leaves, None, first=0), [x for x in leaves if isinstance(x, Tensor)])
    return Kept(activations, loss * num_ranks)


class _Shapes:
    """The model and its inputs as shapes alone."""

    def __init__(self, model: DualEncoder):
        self.model, self.mode = model, FakeTensorMode(allow_non_fake_inputs=True)
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

        def images(count: int) -> Tensor:
            return torch.empty(count, 3, *self.model.image_size_px, dtype=torch.uint8)

        def tokens(count: int) -> Tensor:
            return torch.zeros(count, context_length, dtype=torch.long)

        mix = regions = None
        if mixer is not None and num_mixed:
            with unset_fake_temporarily():
                rows = torch.arange(num_mixed)
                partners = rows.roll(-1)
            mix = _RealPlan(mixer, compute, rows, partners, 0, 0, 0, tokens(num_mixed) if mixer.joins_captions else None)
        if num_region_images:
            index, labels = torch.zeros(num_phrases, dtype=torch.long), torch.empty(num_phrases, num_patches)
            regions = RegionBatch(images(num_region_images), tokens(num_phrases), index, labels, [])
        arguments = (images(num_pairs), tokens(num_pairs))
        return torch.func.functional_call(self.model, self.tensors, arguments, {"mix": mix, "regions": regions})


class _RealPlan(MixStep):
    """Plans that need no scores look at the numbers of rows, so these are no shapes alone."""

    def plan(self, device: torch.device, logits: Tensor | None = None) -> MixPlan:
        if self.mixer.needs_scores:
            return super().plan(device, logits)
        with unset_fake_temporarily():
            return super().plan(device)


class _ForwardAndBackward(TorchDispatchMode):
    """Counts the FLOPs of forward passes, those that carry a gradient three times."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out) * (3 if torch.is_grad_enabled() else 1)
        return out


def _bytes_kept(run: Callable[[], Any], given: Any) -> int:
    """Bytes of the different storages that autograd keeps during ``run``, without those of the tensors given."""
    not_counted = {tensor.untyped_storage()._cdata for tensor in given}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for number, storage in kept.items() if number not in not_counted)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
