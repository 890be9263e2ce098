"""What a run will cost, before it starts: parameters, FLOPs, memory and time."""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from timix_pl.config.parts import device_peak_flops, normalises_over_the_batch, num_devices, num_steps, on_gpu, precision_of
from timix_pl.config.resources import describe_resources
from timix_pl.config.schema import DataKind, LauncherKind, Precision, RootConfig, Strategy
from timix_pl.config.validate import micro_batch_sizes
from timix_pl.data.index import read_manifest
from timix_pl.data.shards import shard_items
from timix_pl.mixing.groups import num_mixed_rows
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import FineTuned
from timix_pl.reports.header import duration
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.step_cost import StepShape, count_flops, count_kept

GPU_SHARE, CPU_SHARE = (0.15, 0.4), (0.15, 0.6)
"""How near steps are assumed to come to a GPU's peak, and to a CPU's product of large matrices."""


def describe_cost(cfg: RootConfig, model: DualEncoder, mixing: MixingCallback | None) -> str:
    """The cost of a run as lines of text; what is assumed or left out is said in them.

    Args:
        model: on the meta device.
    """
    num_ranks = num_devices(cfg) * cfg.trainer.num_nodes
    whole, per_rank = _step_shape(cfg, 1), _step_shape(cfg, num_ranks)
    average = whole._replace(
        num_region_images=whole.num_region_images / cfg.pta.every_n_steps, num_phrases=whole.num_phrases / cfg.pta.every_n_steps
    )
    flops = count_flops(model, mixing.mixer if mixing else None, cfg.mixing.compute)
    on_device, offloaded = _memory(cfg, model, mixing, per_rank, num_ranks)
    return "\n".join(
        [
            *_parameters(model),
            "FLOPs of one pair in a training step, forward and backward",
            *_rows("GFLOP", {name: part * count / whole.num_pairs / 1e9 for name, part, count in zip(_PARTS, flops, average, strict=True)}),
            f"Memory of a device, estimated: {_precision_and_split(cfg, num_ranks)}, {per_rank.num_pairs:,} pairs a step (GB: 10^9 bytes)",
            *_rows("GB", on_device),
            "  not counted: the loss's features and tiles, what exists for a moment (with fsdp, all weights in evaluations), the allocator",
            *_way_to_fit(cfg, model, mixing, per_rank, num_ranks, sum(on_device.values())),
            *(["CPU memory of a rank, trainer.cpu_offload", *_rows("GB", offloaded)] if offloaded else []),
            "Time, estimated",
            *_time(cfg, _recomputed(cfg, per_rank) * flops.of(average), num_ranks),
            *([describe_resources(cfg)] if cfg.launcher.kind == LauncherKind.slurm else []),
        ]
    )


def describe_task_cost(cfg: RootConfig, model: FineTuned) -> str:
    """What is known of a fine-tuning run beforehand: parameters and steps.

    Args:
        model: on the meta device.
    """
    tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size, num_images = cfg.data.global_batch_size, _num_pairs(cfg)
    return "\n".join(
        [
            *_parameters(model),
            f"  {'trained among them':<42}{sum(parameter.numel() for parameter in tuned):>16,}",
            *_length(
                num_steps(cfg, num_images or 0),
                size,
                num_images,
                "images",
                bool(cfg.trainer.max_steps or num_images or cfg.data.epoch_samples),
            ),
            "Memory and time of fine-tuning are not estimated",
        ]
    )


_PARTS = ("image and caption", "mixed images", "region images up to pta.block", "phrases, at most")


def _precision_and_split(cfg: RootConfig, num_ranks: int) -> str:
    known = " (auto: without a GPU here)" if cfg.trainer.precision == Precision.auto and not torch.cuda.is_available() else ""
    split = f", {cfg.trainer.strategy} on {num_ranks} devices" if num_ranks > 1 else ""
    return f"{precision_of(cfg)}{known}{split}"


def _recomputed(cfg: RootConfig, shape: StepShape) -> float:
    """Work of a step, of what it would be if nothing were computed twice: forward passes are a third of it."""
    again = cfg.trainer.gradient_checkpointing + ((cfg.trainer.micro_batch_size or shape.num_pairs) < shape.num_pairs)
    return (3 + again) / 3


def _step_shape(cfg: RootConfig, num_ranks: int) -> StepShape:
    """A rank's part of a step with a region batch, at full strength of mixing."""
    num_pairs = math.ceil(cfg.data.global_batch_size / num_ranks)
    num_mixed = num_pairs * num_mixed_rows(cfg.mixing.group_size, cfg.mixing.ratio) // cfg.mixing.group_size
    num_regions = math.ceil(cfg.pta.batch_size / num_ranks) if cfg.pta.enabled else 0
    return StepShape(num_pairs, num_mixed, num_regions, num_regions * cfg.data.max_phrases)


def _parameters(model: DualEncoder | FineTuned) -> Iterator[str]:
    yield "Parameters"
    parts = {"image": "image tower", "text": "text tower", "pta": "PTA head"} | (
        {"head": "the task's head"} if isinstance(model, FineTuned) else {}
    )
    for name, said in parts.items():
        module = model.parts().get(name)
        yield f"  {said:<42}{sum(p.numel() for p in module.parameters()) if module is not None else 0:>16,}"
    yield f"Patch grid {model.patch_grid[0]} x {model.patch_grid[1]}, images of {model.image_size_px[0]} x {model.image_size_px[1]} pixels"


def _rows(unit: str, values: Mapping[str, float]) -> list[str]:
    known = {name: value for name, value in values.items() if value}
    return [f"  {name:<42}{value:>16,.3f} {unit}" for name, value in (*known.items(), ("together", sum(known.values())))]


def _memory(
    cfg: RootConfig, model: DualEncoder, mixing: MixingCallback | None, shape: StepShape, num_ranks: int
) -> tuple[dict[str, float], dict[str, float]]:
    """GB that a rank needs on its device, and in CPU memory on account of ``trainer.cpu_offload``."""
    precision = precision_of(cfg)
    if precision == Precision.bf16_pure:
        model = model.to(torch.bfloat16)
    if cfg.trainer.gradient_checkpointing:
        model.checkpoint_gradients()
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9
    if cfg.trainer.strategy == Strategy.fsdp:
        weights /= num_ranks
    state = {"weights": weights, "gradients": weights, "AdamW's moments": 2 * weights}
    share = min(1.0, (cfg.trainer.micro_batch_size or shape.num_pairs) / shape.num_pairs)
    at_once = shape._replace(num_pairs=round(share * shape.num_pairs), num_mixed=round(share * shape.num_mixed))
    kept = count_kept(model, mixing.mixer if mixing else None, cfg.mixing.compute, at_once, autocast=precision == Precision.bf16_mixed)
    activations = {"activations kept for the backward pass": kept / 1e9}
    return (activations, state) if cfg.trainer.cpu_offload and num_ranks > 1 else (state | activations, {})


def _way_to_fit(
    cfg: RootConfig, model: DualEncoder, mixing: MixingCallback | None, shape: StepShape, num_ranks: int, needed_gb: float
) -> Iterator[str]:
    """What to set where a device has less memory than ``needed_gb``; nothing where it is not known."""
    device_gb = _device_gb(cfg)
    if device_gb is None or needed_gb <= device_gb:
        return
    begin = f"  more than the {device_gb:.1f} GB that a device has here; "
    elsewhere = "try trainer.gradient_checkpointing=true, trainer=fsdp on more devices, or a smaller model"
    if normalises_over_the_batch(model):
        yield f"{begin}{elsewhere} or data.global_batch_size"
        return
    now = cfg.trainer.micro_batch_size or int(shape.num_pairs)
    for size in reversed(micro_batch_sizes(int(shape.num_pairs), cfg.mixing.group_size if mixing else 1)):
        if size < now:
            chunked = dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, micro_batch_size=size))
            takes_gb = sum(_memory(chunked, model, mixing, shape, num_ranks)[0].values())
            if takes_gb <= device_gb:
                yield f"{begin}set trainer.micro_batch_size={size}, for {takes_gb:.1f} GB"
                return
    yield f"{begin}no trainer.micro_batch_size is small enough; {elsewhere}"


def _device_gb(cfg: RootConfig) -> float | None:
    """Memory of one device, where the run is to start on this machine; on CPUs a rank's share."""
    if cfg.launcher.kind == LauncherKind.slurm or (on_gpu(cfg) and not torch.cuda.is_available()):
        return None
    if on_gpu(cfg):
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / num_devices(cfg) / 1e9


def _time(cfg: RootConfig, step_flops: float, num_ranks: int) -> Iterator[str]:
    size, num_pairs = cfg.data.global_batch_size, _num_pairs(cfg)
    known_length = cfg.trainer.max_steps or num_pairs or cfg.data.epoch_samples
    steps = num_steps(cfg, num_pairs or 0)
    yield from _length(steps, size, num_pairs, "pairs", bool(known_length))
    peak, shares = device_peak_flops(cfg), GPU_SHARE
    if peak is not None:
        source = f"the {peak / 1e12:,.0f} TFLOP/s that a device has at best"
    elif on_gpu(cfg):
        yield "  how fast is not known: give trainer.peak_tflops, what the data sheet says of the GPU in the precision used"
        return
    else:
        peak, shares = _cpu_flops(cfg.trainer.num_threads), CPU_SHARE
        source = f"the {peak / 1e9:,.0f} GFLOP/s that this CPU just reached in multiplying large matrices"
    slow, fast = (share * peak * num_ranks / step_flops for share in shares)  # steps per second
    yield f"  if a step reaches {shares[0]:.0%} to {shares[1]:.0%} of {source} (assumed; nothing of the run was tried):"
    yield f"  {_two_digits(slow * size)} to {_two_digits(fast * size)} samples/s without waiting for data"
    if known_length:
        yield f"  {duration(steps / fast)} to {duration(steps / slow)} in all, evaluations and checkpoints left out"


def _length(steps: int, size: int, num_samples: int | None, samples: str, known: bool) -> Iterator[str]:
    if known:
        epochs = f", {steps * size / num_samples:.3g} epochs of {num_samples:,} {samples}" if num_samples else ""
        yield f"  {steps:,} steps of {size:,} {samples}{epochs}"
    else:
        yield "  how many steps is known once the shards have a manifest.json (timix-data index) on a local disk"


def _num_pairs(cfg: RootConfig) -> int | None:
    """Training pairs, where that is known without looking at a shard."""
    if cfg.data.kind == DataKind.scenes:
        return cfg.data.scenes.num_train
    if cfg.data.kind == DataKind.stream:
        return None
    items = [item["path"] if isinstance(item, Mapping) else item for item in shard_items(cfg.data.train_shards)]
    listings = [read_manifest(Path(str(item)).expanduser()) for item in items]
    known = [int(listing.sizes.sum()) for listing in listings if listing is not None]
    return sum(known) if len(known) == len(items) else None


def _cpu_flops(num_threads: int | None, *, size: int = 1024, seconds: float = 0.2) -> float:
    """FLOP/s of fp32 matrix products of ``size`` rows and columns."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads or before)
    a = torch.ones(size, size)
    a @ a
    started_s, count = time.perf_counter(), 0
    while (passed_s := time.perf_counter() - started_s) < seconds:
        a @ a
        count += 1
    torch.set_num_threads(before)
    return 2 * size**3 * count / passed_s


def _two_digits(value: float) -> str:
    return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}" if value >= 1 else f"{value:.2g}"
