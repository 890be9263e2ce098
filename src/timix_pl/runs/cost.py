"""Estimate the cost of a run before it starts: parameters, FLOPs, memory and time."""

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timix_pl.building.data import num_steps
from timix_pl.building.devices import device_peak_flops, num_devices, on_gpu, precision_of
from timix_pl.building.model import normalises_over_the_batch
from timix_pl.building.optim import build_optim
from timix_pl.building.task import Task
from timix_pl.config.schema import DataKind, LauncherKind, Precision, RootConfig, Strategy
from timix_pl.config.validate import micro_batch_sizes
from timix_pl.core.errors import TimixError
from timix_pl.core.words import counted
from timix_pl.data.shards.manifest import read_manifest
from timix_pl.data.shards.sources import shard_items
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.reports.header import duration
from timix_pl.runs.slurm_resources import describe_resources
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.step_cost import Workload, count_flops, count_kept, flops_of

GPU_SHARE, CPU_SHARE = (0.15, 0.4), (0.15, 0.6)
"""Assumed range of a step's FLOP/s, as a share of a GPU's peak, and of a CPU's speed in products of large matrices."""

_PART_NAMES = {"image": "image tower", "text": "text tower", "pta": "PTA head", "head": "the task's head"}


class _Work(NamedTuple):
    """The run to estimate: a task, its model, and what one step computes."""

    task: Task
    model: AnyModel
    workload: Workload
    group: int
    """The micro-batch size must be a multiple of this."""

    def per_rank(self, num_ranks: int) -> int:
        """Samples per rank and step."""
        return next(iter(self.task.most_counts(num_ranks).values()))


def describe_cost(task: Task, model: AnyModel, mixing: MixingCallback | None) -> str:
    """The estimated cost of a run as lines of text, with the assumptions.

    Args:
        model: on the meta device.
        mixing: None if the run does not mix images.
    """
    cfg = task.cfg
    work = _Work(task, model, task.workload(model, mixing.mixer if mixing else None), cfg.mixing.group_size if mixing else 1)
    num_pairs = _num_pairs(cfg)
    try:
        cost = list(_estimates(cfg, work, num_pairs))
    except TimixError:
        raise
    except Exception as error:  # a tower may use an operation that PyTorch cannot run on the meta device
        why = str(error).partition("\n")[0] or type(error).__name__
        cost = [
            f"FLOPs, memory and speed are not estimated: PyTorch cannot count them for {cfg.model.architecture} ({why})",
            "Length",
            _length(cfg, work, num_pairs),
        ]
    slurm = [describe_resources(cfg)] if cfg.launcher.kind == LauncherKind.slurm else []
    return "\n".join([*_parameters(model), *cost, *slurm])


def _estimates(cfg: RootConfig, work: _Work, num_pairs: int | None) -> Iterator[str]:
    num_ranks, size, sample = num_devices(cfg) * cfg.trainer.num_nodes, cfg.data.global_batch_size, work.task.sample
    flops, counts, per_rank = count_flops(work.workload), work.task.mean_counts(), work.per_rank(num_ranks)
    on_device, offloaded = _memory(cfg, work, num_ranks)
    yield f"FLOPs of one {sample} in a training step, forward and backward"
    yield from _rows("GFLOP", {words: flops[part] * counts[part] / size / 1e9 for part, words in work.workload.parts.items()})
    split = _precision_and_split(cfg, num_ranks)
    yield f"Memory of a device, estimated: {split}, {per_rank:,} {sample}s a step (GB: 10^9 bytes)"
    yield from _rows("GB", on_device)
    momentary = "what exists for a moment (with fsdp, all weights in evaluations)"
    yield f"  not counted: {', '.join(filter(None, (work.workload.not_counted, momentary, 'the allocator')))}"
    yield from _way_to_fit(cfg, work, num_ranks, sum(on_device.values()))
    if offloaded:
        yield "CPU memory of a rank, trainer.cpu_offload"
        yield from _rows("GB", offloaded)
    yield "Time, estimated"
    yield _length(cfg, work, num_pairs)
    step_flops = _recomputed(cfg, per_rank) * flops_of(flops, counts)
    yield from _speed(cfg, step_flops, num_ranks, _num_steps(cfg, num_pairs))


def _precision_and_split(cfg: RootConfig, num_ranks: int) -> str:
    known = " (auto: without a GPU here)" if cfg.trainer.precision == Precision.auto and not torch.cuda.is_available() else ""
    split = f", {cfg.trainer.strategy} on {num_ranks} devices" if num_ranks > 1 else ""
    return f"{precision_of(cfg)}{known}{split}"


def _recomputed(cfg: RootConfig, num_samples: int) -> float:
    """FLOPs of a step, relative to a step that computes nothing twice. A forward pass is a third of such a step."""
    again = cfg.trainer.gradient_checkpointing + ((cfg.trainer.micro_batch_size or num_samples) < num_samples)
    return (3 + again) / 3


def _parameters(model: AnyModel) -> Iterator[str]:
    yield "Parameters"
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in ({"pta": nn.Identity()} | model.parts()).items()}
    for name in sorted(sizes, key=lambda name: list(_PART_NAMES).index(name) if name in _PART_NAMES else len(_PART_NAMES)):
        yield f"  {_PART_NAMES.get(name, f'loss term {name}'):<42}{sizes[name]:>16,}"
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trained < sum(p.numel() for p in model.parameters()):
        yield f"  {'trained among them':<42}{trained:>16,}"
    yield f"Patch grid {model.patch_grid[0]} x {model.patch_grid[1]}, images of {model.image_size_px[0]} x {model.image_size_px[1]} pixels"


def _rows(unit: str, values: Mapping[str, float]) -> list[str]:
    known = {name: value for name, value in values.items() if value}
    return [f"  {name:<42}{value:>16,.3f} {unit}" for name, value in (*known.items(), ("together", sum(known.values())))]


def _memory(cfg: RootConfig, work: _Work, num_ranks: int) -> tuple[dict[str, float], dict[str, float]]:
    """GB that a rank needs on its device, and in CPU memory because of ``trainer.cpu_offload``."""
    precision, model, counts, size = precision_of(cfg), work.model, work.task.most_counts(num_ranks), work.per_rank(num_ranks)
    if precision == Precision.bf16_pure:
        model = model.to(torch.bfloat16)
    if cfg.trainer.gradient_checkpointing:
        model.checkpoint_gradients()
    shards = num_ranks if cfg.trainer.strategy == Strategy.fsdp else 1
    weights, trained = (_gb(p for p in model.parameters() if p.requires_grad or not tuned) / shards for tuned in (False, True))
    state = {"weights": weights, "gradients": trained, f"optimizer state ({cfg.optim.kind})": _optimizer_gb(work.task, model) / shards}
    if cfg.optim.ema is not None:
        state |= {"moving average of the weights": trained}
    share = min(1.0, (cfg.trainer.micro_batch_size or size) / size)
    at_once = {part: round(share * count) if part in work.workload.cut else count for part, count in counts.items()}
    kept = count_kept(work.workload, at_once, autocast=precision == Precision.bf16_mixed)
    activations = {"activations kept for the backward pass": kept / 1e9}
    return (activations, state) if cfg.trainer.cpu_offload and num_ranks > 1 else (state | activations, {})


def _optimizer_gb(task: Task, model: AnyModel) -> float:
    optim = build_optim(task.cfg)
    groups = task.parameter_groups(model, optim)
    states = (optim.optimizer.state(parameter, group) for group in groups for parameter in group["params"])
    return _gb(tensor for state in states for tensor in state.values())


def _gb(tensors: Iterable[Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e9


def _way_to_fit(cfg: RootConfig, work: _Work, num_ranks: int, needed_gb: float) -> Iterator[str]:
    """What to set if a device has less memory than ``needed_gb``; nothing if its memory is not known."""
    device_gb = _device_gb(cfg)
    if device_gb is None or needed_gb <= device_gb:
        return
    begin = f"  more than the {device_gb:.1f} GB that a device has here; "
    elsewhere = "try trainer.gradient_checkpointing=true, trainer=fsdp on more devices, or a smaller model"
    if normalises_over_the_batch(work.model):
        yield f"{begin}{elsewhere} or data.global_batch_size"
        return
    num_samples = work.per_rank(num_ranks)
    now = cfg.trainer.micro_batch_size or num_samples
    for size in reversed(micro_batch_sizes(num_samples, work.group)):
        if size < now:
            chunked = dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, micro_batch_size=size))
            takes_gb = sum(_memory(chunked, work, num_ranks)[0].values())
            if takes_gb <= device_gb:
                yield f"{begin}set trainer.micro_batch_size={size}, for {takes_gb:.1f} GB"
                return
    yield f"{begin}no trainer.micro_batch_size is small enough; {elsewhere}"


def _device_gb(cfg: RootConfig) -> float | None:
    """Memory of one device in GB, if the run starts on this machine; on a CPU the share of one rank."""
    if cfg.launcher.kind == LauncherKind.slurm or (on_gpu(cfg) and not torch.cuda.is_available()):
        return None
    if on_gpu(cfg):
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / num_devices(cfg) / 1e9


def _speed(cfg: RootConfig, step_flops: float, num_ranks: int, steps: int | None) -> Iterator[str]:
    size, peak, shares = cfg.data.global_batch_size, device_peak_flops(cfg), GPU_SHARE
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
    if steps is not None:
        yield f"  {duration(steps / fast)} to {duration(steps / slow)} in all, evaluations and checkpoints left out"


def _length(cfg: RootConfig, work: _Work, num_pairs: int | None) -> str:
    size, steps = cfg.data.global_batch_size, _num_steps(cfg, num_pairs)
    if steps is None:
        return "  the number of steps is known only if the shards are on a local disk with a manifest.json (timix-data index)"
    epochs = f", {steps * size / num_pairs:.3g} epochs of {num_pairs:,} {work.task.sample}s" if num_pairs else ""
    return f"  {counted(steps, 'step')} of {size:,} {work.task.sample}s{epochs}"


def _num_steps(cfg: RootConfig, num_pairs: int | None) -> int | None:
    """Steps of the run, or None if not known."""
    return num_steps(cfg, num_pairs or 0) if cfg.trainer.max_steps or num_pairs or cfg.data.epoch_samples else None


def _num_pairs(cfg: RootConfig) -> int | None:
    """Number of training pairs, or None if it is not known without reading shards."""
    if cfg.data.kind == DataKind.scenes:
        return cfg.data.scenes.num_train
    if cfg.data.kind == DataKind.stream:
        return None
    items = [item["path"] if isinstance(item, Mapping) else item for item in shard_items(cfg.data.train_shards)]
    listings = [read_manifest(Path(str(item)).expanduser()) for item in items]
    known = [int(listing.sizes.sum()) for listing in listings if listing is not None]
    return sum(known) if len(known) == len(items) else None


def _cpu_flops(num_threads: int | None, *, size: int = 1024, seconds: float = 0.2) -> float:
    """Measured FLOP/s of fp32 products of ``size`` x ``size`` matrices."""
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
