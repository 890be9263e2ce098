"""What one GPU does with CLIP and TiMix in bf16, from open_clip's step to ours, measure by measure; then the losses of large batches.

Every row is a process of its own: whole training steps on a batch that is there already in pinned memory, open_clip_train's loop or ours
under Lightning's Trainer. ``MFU`` is the share of the GPU's bf16 peak that the model's FLOPs make (what checkpointing and accumulation
compute again is not counted); ``GB`` the most memory that tensors held. TiMix rows hold a region batch: a quarter as many images as pairs,
three phrases each.

make bench-gpu
python -m benchmarks.gpu --architectures ViT-B-32 --batch-sizes 2048 --rows TiMix
python -m benchmarks.gpu --device cpu --tiny
"""

import argparse
import json
import logging
import re
import subprocess
import sys
from typing import NamedTuple

import torch

from benchmarks.ready_made import PHRASES_PER_IMAGE, open_clip_step_s, step_s
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.callbacks.throughput import peak_memory_bytes
from timix_pl.training.objective import Contrastive, Objective
from timix_pl.training.peak_flops import peak_flops
from timix_pl.training.step_cost import PairWorkload, count_flops, flops_of

BATCH_SIZES = {"ViT-B-32": 1024, "ViT-B-16": 384, "ViT-L-14": 128}
TINY = {"timix-tiny": 16}
ACCUMULATED = 16
LOSSES = {  # for benchmarks.loss: batch sizes of both sides, and those that are too large for the other side
    "cuda": ["--batch-sizes", "32768", "--ours-alone", "65536", "131072", "262144"],
    "cpu": ["--batch-sizes", "512", "--ours-alone", "1024", "--rounds", "1"],
}


class Variant(NamedTuple):
    """One row. ``beside``: the row that its speed is compared with.

    ``scale``: its batch, in batches of the other rows; ``accumulated``: taken through the model one by one. ``ratio``: of mixed images;
    None: plain CLIP. ``of_tokens``: they are mixed after a third of the blocks.
    """

    beside: str | None
    open_clip: bool = False
    fused: bool = True
    compiled: bool = False
    checkpointing: bool = False
    scale: int = 1
    accumulated: bool = False
    tiled: bool = True
    ratio: float | None = None
    compute: str = "extra"
    of_tokens: bool = False


VARIANTS = {
    "open_clip": Variant(None, open_clip=True, fused=False),
    "open_clip, fused AdamW": Variant("open_clip", open_clip=True),
    "timix-pl": Variant("open_clip, fused AdamW"),
    "compiled": Variant("timix-pl", compiled=True),
    "checkpointed": Variant("timix-pl", checkpointing=True),
    "compiled, checkpointed": Variant("compiled", compiled=True, checkpointing=True),
    "the same, 4 times the batch": Variant("compiled", compiled=True, checkpointing=True, scale=4),
    f"compiled, {ACCUMULATED} accumulated, not tiled": Variant("compiled", compiled=True, scale=ACCUMULATED, accumulated=True, tiled=False),
    f"compiled, {ACCUMULATED} accumulated": Variant("compiled", compiled=True, scale=ACCUMULATED, accumulated=True),
    "TiMix, extra, 1, not compiled": Variant("timix-pl", ratio=1.0),
    "TiMix, extra, 1": Variant("compiled", compiled=True, ratio=1.0),
    "TiMix, extra, 0.3": Variant("compiled", compiled=True, ratio=0.3),
    "TiMix, replace, 1": Variant("compiled", compiled=True, ratio=1.0, compute="replace"),
    "TiMix, replace, 0.3": Variant("compiled", compiled=True, ratio=0.3, compute="replace"),
    "TiMix, extra, tokens, 1": Variant("compiled", compiled=True, ratio=1.0, of_tokens=True),
    "TiMix, extra, tokens, 0.3": Variant("compiled", compiled=True, ratio=0.3, of_tokens=True),
}


class Row(NamedTuple):
    """What is measured of a variant. ``mfu`` is None where the device's peak is not known."""

    batch_size: int
    samples_per_s: float
    mfu: float | None
    peak_gb: float


def measure(variant: Variant, architecture: str, batch_size: int, *, device: str, num_steps: int, backend: str = "inductor") -> Row:
    """Build a variant and time its steps. ``batch_size``: of one pass through the model; ``backend``: of torch.compile."""
    batch_size, micro_batch_size = batch_size * variant.scale, batch_size if variant.accumulated else None
    length = {"num_steps": max(2, num_steps // variant.scale), "warm_up": 3, "device": device, "precision": "amp_bf16"}
    torch.manual_seed(0)
    mixed = variant.ratio is not None
    depth = len(DualEncoder.create(architecture, pta_block=1, with_pta=False, device="meta").image.blocks())
    model = DualEncoder.create(architecture, pta_block=depth // 2, with_pta=mixed, mixing_level=depth // 3 if variant.of_tokens else None)
    mixer, num_regions = (TiMix(model.patch_grid), batch_size // 4) if mixed else (None, 0)
    flops = count_flops(PairWorkload(model, mixer, variant.compute))
    if variant.open_clip:
        seconds = open_clip_step_s(architecture, batch_size, fused=variant.fused, **length)
    else:
        if variant.checkpointing:
            model.checkpoint_gradients()
        if variant.compiled:
            model.compile_blocks(backend)
        targets, tile_rows = "self" if variant.compute == "extra" else "one_hot", None if variant.tiled else batch_size
        objective = Objective(Contrastive(targets=targets, tile_rows=tile_rows))
        mixing = [MixingCallback(mixer, ratio=variant.ratio or 0, compute=variant.compute, group_size=batch_size)] if mixer else []
        seconds = step_s(
            model, objective, batch_size, num_regions=num_regions, callbacks=mixing, micro_batch_size=micro_batch_size, **length
        )
    num_mixed, num_phrases = round((variant.ratio or 0) * batch_size), num_regions * PHRASES_PER_IMAGE
    counts = {"pair": batch_size, "mixed_image": num_mixed, "region_image": num_regions, "phrase": num_phrases}
    peak = peak_flops(torch.device(device), bf16=True)
    mfu = None if peak is None else flops_of(flops, counts) / seconds / peak
    return Row(batch_size, batch_size / seconds, mfu, peak_memory_bytes(torch.device(device)) / 1e9)


def measured(name: str, architecture: str, batch_size: int, options: argparse.Namespace) -> Row | None:
    """:func:`measure` in a process of its own; None, and the reason is printed, where that fails: the memory may not suffice."""
    words = ["--one", name, architecture, str(batch_size), "--device", options.device, "--num-steps", str(options.num_steps)]
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--backend", options.backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name:<38}failed: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1][:200]}", flush=True)
        return None
    return Row(*json.loads(done.stdout.splitlines()[-1]))


def ladder(architecture: str, batch_size: int, options: argparse.Namespace) -> None:
    """Print a row for each variant of one architecture."""
    print(f"\n{architecture:<38}{'batch':>7}{'samples/s':>11}{'MFU':>7}{'GB':>7}{'speed':>8}", flush=True)
    rows: dict[str, Row | None] = {}
    for name, variant in VARIANTS.items():
        if not re.search(options.rows, name):
            continue
        row = rows[name] = measured(name, architecture, batch_size, options)
        if row is None:
            continue
        base = rows.get(variant.beside or "")
        speed = f"{row.samples_per_s / base.samples_per_s:>7.2f}x of {variant.beside}" if base else ""
        mfu = "-" if row.mfu is None else f"{row.mfu:.0%}"
        print(f"{name:<38}{row.batch_size:>7}{row.samples_per_s:>11.0f}{mfu:>7}{row.peak_gb:>7.1f}{speed}", flush=True)


def main() -> None:
    """Print the tables, or say that there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="one for each architecture; the default ones are for 80 GB")
    parser.add_argument("--rows", default="", help="only variants whose names match this regular expression")
    parser.add_argument("--num-steps", type=int, default=30)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a tiny model and small losses, to try the benchmark itself")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no GPU here")
        return
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of weights that nobody asked for
    if options.one:
        name, architecture, batch_size = options.one
        length = {"device": options.device, "num_steps": options.num_steps, "backend": options.backend}
        print(json.dumps(measure(VARIANTS[name], architecture, int(batch_size), **length)))
        return
    architectures = list(TINY) if options.tiny else options.architectures
    batch_sizes = options.batch_sizes or [(BATCH_SIZES | TINY).get(architecture, 128) for architecture in architectures]
    print(torch.cuda.get_device_name() if options.device == "cuda" else "CPU", f"torch {torch.__version__}, bf16", sep=", ")
    for architecture, batch_size in zip(architectures, batch_sizes, strict=True):
        ladder(architecture, batch_size, options)
    print("\nLosses, fp32", flush=True)
    losses = LOSSES["cpu" if options.tiny else options.device]
    subprocess.run([sys.executable, "-m", "benchmarks.loss", "--device", options.device, *losses], check=True)


if __name__ == "__main__":
    main()
