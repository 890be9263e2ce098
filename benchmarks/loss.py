"""Time and memory of the contrastive losses, forward and backward, beside open_clip's and, for mixed images, beside all logits at once.

Each side runs in a process of its own, on one device, in fp32. Memory is the peak above what the process held with the features in place,
gradients included; time is the shortest of the rounds, the sides taking turns.

python -m benchmarks.loss --batch-sizes 4096 16384 --threads 1
python -m benchmarks.loss --batch-sizes 4096 --ours-alone 65536
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor

from benchmarks.untiled import untiled_loss
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.contrastive.siglip import siglip
from timix_pl.losses.pairs import Pairs

LOSSES = {"info_nce": "InfoNCE", "siglip": "SigLIP", "mixed": "mixed images, self targets"}
NUM_DIMS, WARM_UP_BATCH = 512, 256


def draw(batch_size: int, device: str) -> tuple[Tensor, ...]:
    """Normalised images and captions, the logit scale and bias: as leaves."""
    torch.manual_seed(0)
    features = (F.normalize(torch.randn(batch_size, NUM_DIMS, device=device), dim=-1) for _ in range(2))
    return tuple(x.requires_grad_() for x in (*features, torch.tensor([20.0], device=device), torch.tensor([-10.0], device=device)))


def loss_of(side: str, loss: str, batch_size: int, device: str, tile_rows: int | None) -> Callable[[], Tensor]:
    """The loss of a batch, ready to be called. Half of each mixed image, and a little noise, is its partner's."""
    images, captions, scale, bias = draw(batch_size, device)
    if loss == "info_nce":
        return (
            (lambda: info_nce(images, captions, scale, tile_rows=tile_rows))
            if side == "ours"
            else lambda: ClipLoss()(images, captions, scale)
        )
    if loss == "siglip":
        if side == "ours":
            return lambda: siglip(images, captions, scale, bias, tile_rows=tile_rows)
        return lambda: SigLipLoss()(images, captions, scale, bias)
    own = torch.arange(batch_size, device=device)
    pairs = Pairs(own, own.roll(-1), torch.linspace(0.4, 0.9, batch_size, device=device))
    mixed = F.normalize(torch.randn_like(images), dim=-1).requires_grad_()
    if side == "ours":
        return lambda: info_nce(mixed, captions, scale, pairs, clean=images.detach(), tile_rows=tile_rows)
    return lambda: untiled_loss("info_nce", mixed, captions, scale, None, pairs, images.detach())


def peak_bytes(device: str) -> int:
    """The process's (Linux) or the GPU's, since :func:`forget_peak`."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def forget_peak(device: str) -> None:
    """The peak is what is held now."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats()


def measure(options: argparse.Namespace, side: str, loss: str, batch_size: int) -> None:
    """Print seconds and extra bytes of one forward and backward pass."""
    torch.set_num_threads(options.threads)
    loss_of(side, loss, WARM_UP_BATCH, options.device, 128)().backward()
    loss_now = loss_of(side, loss, batch_size, options.device, options.tile_rows)
    forget_peak(options.device)
    before = peak_bytes(options.device)
    start = time.perf_counter()
    loss_now().backward()
    if options.device != "cpu":
        torch.cuda.synchronize()
    print(json.dumps([time.perf_counter() - start, peak_bytes(options.device) - before]))


def measured(options: argparse.Namespace, side: str, loss: str, batch_size: int) -> tuple[float, int]:
    """:func:`measure` in a process of its own."""
    words = ["--one", side, loss, str(batch_size), "--threads", str(options.threads), "--device", options.device]
    words += [] if options.tile_rows is None else ["--tile-rows", str(options.tile_rows)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.loss", *words], check=True, stdout=subprocess.PIPE)
    seconds, extra = json.loads(done.stdout)
    return seconds, extra


def compare(options: argparse.Namespace) -> None:
    """A row for each loss and batch size."""
    print(f"{'batch':>6}  {'loss':<28}{'theirs':>9}{'ours':>9}{'ratio':>7}{'theirs':>12}{'ours':>10}{'ratio':>8}", flush=True)
    for loss, name in LOSSES.items():
        for batch_size in options.batch_sizes:
            rounds = [[measured(options, side, loss, batch_size) for side in ("theirs", "ours")] for _ in range(options.rounds)]
            (theirs_s, theirs), (ours_s, ours) = (tuple(map(min, zip(*side, strict=True))) for side in zip(*rounds, strict=True))
            times = f"{theirs_s:>7.2f} s{ours_s:>7.2f} s{ours_s / theirs_s:>7.2f}"
            memory = f"{theirs / 1e6:>9.0f} MB{ours / 1e6:>7.0f} MB{f'1/{theirs / ours:.0f}':>8}"
            print(f"{batch_size:>6}  {name:<28}{times}{memory}", flush=True)
        for batch_size in options.ours_alone:
            ours_s, ours = measured(options, "ours", loss, batch_size)
            expected = theirs * (batch_size / options.batch_sizes[-1]) ** 2  # all of it is in matrices of batch by batch
            memory = f"{expected / 1e6:>9.0f} MB{ours / 1e6:>7.0f} MB{f'1/{expected / ours:.0f}':>8}"
            print(f"{batch_size:>6}  {name:<28}{'':>9}{ours_s:>7.2f} s{'':>7}{memory}  (theirs: by the square)", flush=True)


def main() -> None:
    """Compare, or measure one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--ours-alone", type=int, nargs="*", default=[], help="batch sizes that would be too large for the other side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tile-rows", type=int, help="loss.tile_rows")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options, options.one[0], options.one[1], int(options.one[2]))
    else:
        compare(options)


if __name__ == "__main__":
    main()
