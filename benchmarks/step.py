"""The cost of a TiMix step, as ratios of the plain CLIP step, beside the lowest cost that the method allows.

python -m benchmarks.step --architecture timix-tiny --batch-size 128
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from timix_pl.core.types import PairBatch, RegionBatch
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.mixer import MixRows
from timix_pl.mixing.step import MixStep
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.encoded import Encoded
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.optim.groups import parameter_groups
from timix_pl.training.objective import Contrastive, Objective

CAPTION = "a small red ring left of a striped blue square"


class Bench:
    """One model and one batch; every variant is a whole step with its optimizer update."""

    def __init__(self, architecture: str, *, block: int, batch_size: int, num_regions: int, phrases_per_image: int, device: str):
        torch.manual_seed(0)
        self.model = DualEncoder.create(architecture, pta_block=block).to(device)
        self.objective = Objective(Contrastive())
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, 0.1), lr=1e-4, fused=True)
        self.device, self.block_grid = device, self.model.patch_grid
        images = torch.randint(0, 256, (batch_size, 3, *self.model.image_size_px), dtype=torch.uint8, device=device)
        tokens = self.model.tokenizer([CAPTION] * batch_size).to(device)
        num_phrases = num_regions * phrases_per_image
        regions = RegionBatch(
            images=images[:num_regions],
            tokens=self.model.tokenizer([CAPTION] * num_phrases).to(device),
            image_index=torch.arange(num_phrases, device=device) // phrases_per_image,
            patch_labels=torch.randint(0, 2, (num_phrases, self.block_grid[0] * self.block_grid[1]), device=device).float(),
            keys=[],
        )
        self.batch = PairBatch(images=images, tokens=tokens, captions=[CAPTION] * batch_size, regions=regions, keys=[], first=0)
        self.clean = dataclasses.replace(self.batch, regions=None)

    def plain(self) -> None:
        """Only clean images and captions."""
        self._finish(self._loss(self.model(self.batch.images, self.batch.tokens), self.clean))

    def timix(self, ratio: float, compute: str = "extra", *, level: int | None = None, patch_dropout: float = 0.0) -> None:
        """The step as it is trained, PTA included."""
        size = len(self.batch.images)
        rows, partners = mixed_rows(size, size, ratio, seed=0, step=0, first=0)
        chosen = MixRows(rows=rows, partners=partners, seed=0, step=0, first=0, device=self.batch.images.device)
        mix = MixStep(mixer=TiMix(self.block_grid), compute=compute, chosen=chosen)
        self.model.mixing_level = level
        dropout = PatchDropout(patch_dropout, 0, 0, 0) if patch_dropout else None
        encoded = self.model(self.batch.images, self.batch.tokens, mix=mix, regions=self.batch.regions, dropout=dropout)
        self._finish(self._loss(encoded, self.batch))

    def lowest(self, ratio: float, compute: str = "extra") -> None:
        """The plain step and what no implementation can leave out: the mixed images' passes, and the region images' to the block.

        With ``replace`` the mixed images are part of the plain step, and a pass to the block scores the images to be mixed.
        """
        encoded = self.model(self.batch.images, self.batch.tokens)
        loss = self._loss(encoded, self.clean)
        image, pixels = self.model.image, self.model.normalise(self.batch.images)
        chosen = pixels[: round(ratio * len(pixels))]
        if compute == "extra":
            loss = loss + image(chosen).image_features.mean()
        else:
            with torch.no_grad():
                image(chosen, stop=image.block)
        assert self.batch.regions is not None
        self._finish(loss + image(self.model.normalise(self.batch.regions.images), stop=image.block).patch_features.mean())

    def _loss(self, encoded: Encoded, batch: PairBatch) -> torch.Tensor:
        return self.objective(encoded, batch, self.objective.count_items(batch, batch.images.device)).loss

    def _finish(self, loss: torch.Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device != "cpu":
            torch.cuda.synchronize()


def measure(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the variants take turns, so that a slow moment hits all of them."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="timix-tiny")
    parser.add_argument("--block", type=int, default=2, help="pta.block")
    parser.add_argument("--levels", type=int, nargs="*", default=[0, 2], help="rows for mixing.level=tokens:k")
    parser.add_argument("--patch-dropout", type=float, nargs="*", default=[0.5], help="rows for model.patch_dropout")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--region-batch-size", type=int, default=32)
    parser.add_argument("--phrases-per-image", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(
        options.architecture,
        block=options.block,
        batch_size=options.batch_size,
        num_regions=options.region_batch_size,
        phrases_per_image=options.phrases_per_image,
        device=options.device,
    )
    steps: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "TiMix, extra, ratio 1": (lambda: bench.timix(1.0), lambda: bench.lowest(1.0)),
        "TiMix, extra, ratio 0.5": (lambda: bench.timix(0.5), lambda: bench.lowest(0.5)),
        "TiMix, replace, ratio 1": (lambda: bench.timix(1.0, "replace"), lambda: bench.lowest(1.0, "replace")),
    }
    cheaper: dict[str, Callable[[], None]] = {
        f"TiMix, extra, 1, tokens:{k}": lambda k=k: bench.timix(1.0, level=k)
        for k in options.levels  # type: ignore[misc]
    } | {
        f"TiMix, extra, 1, dropout {share:g}": lambda share=share: bench.timix(1.0, patch_dropout=share) for share in options.patch_dropout
    }  # type: ignore[misc]
    variants = {"plain": bench.plain} | cheaper
    for name, (whole, least) in steps.items():
        variants |= {name: whole, f"{name}: lowest": least}
    times = measure(variants, options.rounds)
    plain = statistics.median(times["plain"])
    print(
        f"{options.architecture}, {options.batch_size} pairs, {options.region_batch_size} region images "
        f"of {options.phrases_per_image} phrases, {options.device}, {options.threads} threads, median of {options.rounds} rounds; "
        f"plain CLIP step {plain * 1e3:.0f} ms"
    )
    print(f"{'step':<28}{'of the plain step':>18}{'lowest possible':>18}{'difference':>12}")
    for name in steps:
        ratio, least = (
            statistics.median(a / b for a, b in zip(times[key], times["plain"], strict=True)) for key in (name, f"{name}: lowest")
        )
        print(f"{name:<28}{ratio:>17.2f}x{least:>17.2f}x{ratio - least:>11.2f}x")
    for name in cheaper:
        print(f"{name:<28}{statistics.median(a / b for a, b in zip(times[name], times['plain'], strict=True)):>17.2f}x")
    print("The difference: the PTA head and the phrases' text passes of the region batch, scoring and pasting, and the soft-target loss.")


if __name__ == "__main__":
    main()
