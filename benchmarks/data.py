"""Images per second of the training loader, beside open_clip's own loader and the limit that decoding alone sets.

Every figure comes from a process of its own, and the sides take turns. Images per CPU second (of all processes of a side) depend little on
what else the machine does, images per second much. open_clip's loader needs webdataset 0.2.86, which ``make bench-data`` puts into a folder
of its own.

make bench-data
python -m benchmarks.data --workers 2 --rounds 3
python -m benchmarks.data --loop-minutes 10
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch

from timix_pl.data.images.augment import crop_fills, crop_image, random_crop
from timix_pl.data.images.decode import EncodedImage
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.loader import Loader
from timix_pl.data.order import BlendedOrder, SourceOrder
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.local_tar import LocalTars
from timix_pl.data.shards.reader import ShardReader
from timix_pl.data.shards.writer import ShardWriter

IMAGE_SIZE_PX = 224
SCALES = ((0.9, 1.0), (0.4, 1.0))
SIDES = ("timix", "open_clip", "decoding")
RESUME_AT = (10, 10_000, 10_000_000)
WINDOW_SHARDS = 8
WARM_UP_BATCHES = 8
CAPTION = "a man in a red jacket rides a brown horse along the beach at low tide"


def make_shards(folder: Path, num_shards: int, samples_per_shard: int) -> Path:
    """COCO's photos where ``TIMIX_REAL_DATA`` has them, else generated ones, repeated until the shards are full."""
    photos = sorted(Path(os.environ.get("TIMIX_REAL_DATA", "")).glob("coco/train2017/*.jpg")) if "TIMIX_REAL_DATA" in os.environ else []
    shards = folder / f"{'coco' if photos else 'synthetic'}-{num_shards}x{samples_per_shard}"
    if not (shards / "manifest.json").exists():
        images = [photo.read_bytes() for photo in photos] or [synthetic_photo(seed) for seed in range(64)]
        with ShardWriter(shards, samples_per_shard=samples_per_shard, overwrite=True) as writer:
            for number, image in zip(range(num_shards * samples_per_shard), itertools.cycle(images)):
                writer.write(f"{number:06d}", image, "jpg", captions=[CAPTION])
    return shards


def synthetic_photo(seed: int) -> bytes:
    """A JPEG of 640 x 480 pixels with the spectrum of photos, amplitude falling with frequency, and about their size, 165 kB."""
    rng = np.random.default_rng(seed)
    octaves = [(rng.normal(size=(15 * 2**n, 20 * 2**n, 3)), 40 / 1.6**n) for n in range(6)]
    layers = [cv2.resize(noise * amplitude, (640, 480), interpolation=cv2.INTER_CUBIC) for noise, amplitude in octaves]
    pixels = np.clip(128 + np.sum(layers, 0), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def pair_set(options: argparse.Namespace) -> PairSet:
    """Only pairs, as ``data=shards mixing=none`` reads them."""
    return PairSet(
        SampleStream(options.shards, key="shards", seed=0, name="bench", window_shards=WINDOW_SHARDS),
        None,
        open_clip.get_tokenizer("ViT-B-32"),
        image_size_px=(IMAGE_SIZE_PX, IMAGE_SIZE_PX),
        patch_grid=(7, 7),
        global_batch_size=options.batch_size,
        seed=0,
        augmentation=Augmentation(scale=tuple(options.scale)),
    )


def timix_loader(options: argparse.Namespace, first_step: int = 0) -> Loader:
    """The loader of a run from ``first_step`` on."""
    steps = range(first_step, first_step + 10**9)
    return Loader(pair_set(options), sampler=steps, num_workers=options.workers, prefetch_factor=4)


def open_clip_loader(options: argparse.Namespace) -> Iterable[Any]:
    """What ``open_clip_train`` builds for ``--train-data``."""
    from open_clip_train.data import get_wds_dataset

    args = argparse.Namespace(
        train_data=str(Path(options.shards) / f"shard-{{000000..{len(list(Path(options.shards).glob('*.tar'))) - 1:06d}}}.tar"),
        train_num_samples=10**7,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=options.batch_size,
        workers=options.workers,
        world_size=1,
    )
    preprocess = open_clip.image_transform(IMAGE_SIZE_PX, is_train=True, aug_cfg={"scale": tuple(options.scale)})
    return get_wds_dataset(args, preprocess, True, tokenizer=open_clip.get_tokenizer("ViT-B-32")).dataloader


def measure_loader(loader: Iterable[Any], options: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch, images/s after a warm-up, and MB per worker (pages that processes share are divided among them)."""
    start = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first_batch_s = time.perf_counter() - start
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    start, start_cpu, num_batches = time.perf_counter(), cpu_s([os.getpid(), *workers]), 0
    while (elapsed_s := time.perf_counter() - start) < options.seconds:
        next(batches)
        num_batches += 1
    num_images = num_batches * options.batch_size
    return {
        "images_per_s": num_images / elapsed_s,
        "images_per_cpu_s": num_images / (cpu_s([os.getpid(), *workers]) - start_cpu),
        "first_batch_s": first_batch_s,
        "worker_mb": statistics.mean(memory_mb(pid, "Pss") for pid in workers),
    }


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time of processes so far, from Linux's /proc."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(user) + int(system) for *_, user, system in (field[:13] for field in fields)) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, kind: str) -> float:
    """``Rss`` or ``Pss`` of a process, from Linux's /proc."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def measure_decoding(options: argparse.Namespace) -> dict[str, float]:
    """JPEGs from memory to resized crops, as small as the crop allows, in as many processes as there are workers; nothing else."""
    reader = ShardReader([LocalTars(sorted(Path(options.shards).glob("*.tar"))).manifest()])
    images = [EncodedImage(reader[number].image, "jpg", max_image_px=10**9) for number in range(min(400, len(reader)))]
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:
        done = pool.starmap(decode_for, [(images, options.scale, options.seconds)] * options.workers, chunksize=1)
    num_images, cpu = (sum(column) for column in zip(*done, strict=True))
    return {"images_per_s": num_images / options.seconds, "images_per_cpu_s": num_images / cpu}


def decode_for(images: list[EncodedImage], scale: tuple[float, float], seconds: float) -> tuple[int, float]:
    """Images that one process decodes in so many seconds, and the CPU time that it takes."""
    torch.set_num_threads(1)
    crops = [random_crop(image.width / image.height, scale, (0.75, 4 / 3), False, number) for number, image in enumerate(images)]
    size_px = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    start, start_cpu = time.perf_counter(), time.process_time()
    for count, (image, crop) in enumerate(itertools.cycle(zip(images, crops, strict=True))):
        if time.perf_counter() - start > seconds:
            return count, time.process_time() - start_cpu
        pixels = image.decode(lambda height, width, crop=crop: crop_fills(crop, size_px, height, width))  # type: ignore[misc]
        crop_image(pixels, crop, size_px)
    raise AssertionError("an endless loop ended")


def measure_resume(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch from a position on; the shards are listed so often that the position lies in the first epoch."""
    tars = sorted(Path(options.shards).glob("*.tar"))
    repeated = LocalTars(tars * (max(RESUME_AT) // LocalTars(tars).manifest().num_samples + 2)).manifest()
    sizes = repeated.shards.sizes
    seconds = {}
    for position in RESUME_AT:
        loader = timix_loader(options, position // options.batch_size)
        stream = loader.dataset.dataset.pairs  # type: ignore[attr-defined]
        stream.order = BlendedOrder([SourceOrder(sizes, seed=0, name="bench", window_shards=WINDOW_SHARDS)], [1.0], seed=0)
        stream.reader = ShardReader([repeated], open_shards=WINDOW_SHARDS + 1)
        start = time.perf_counter()
        next(iter(loader))
        seconds[str(position)] = time.perf_counter() - start
    return seconds


def loop(options: argparse.Namespace) -> None:
    """Print the memory of the loader's processes every so often while it runs without end."""
    batches, start, shown, minutes = iter(timix_loader(options)), time.perf_counter(), 0, 0.0
    print(f"{'minutes':>8}{'images/s':>10}{'main RSS MB':>13}{'worker RSS MB':>15}{'worker PSS MB':>15}")
    for num_batches in itertools.count(1):
        if minutes >= options.loop_minutes:
            return
        next(batches)
        minutes = (time.perf_counter() - start) / 60
        if minutes >= shown * options.loop_minutes / 10:
            shown += 1
            workers = [child.pid for child in multiprocessing.active_children() if child.pid]
            rss, pss = (statistics.mean(memory_mb(pid, kind) for pid in workers) for kind in ("Rss", "Pss"))
            rate = num_batches * options.batch_size / (minutes * 60)
            print(f"{minutes:>8.2f}{rate:>10.0f}{memory_mb(os.getpid(), 'Rss'):>13.0f}{rss:>15.0f}{pss:>15.0f}", flush=True)


def run_side(side: str, scale: tuple[float, float], options: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own.

    Raises:
        SystemExit: it failed, with what it said.
    """
    words = ["--side", side, "--shards", options.shards, "--workers", options.workers, "--batch-size", options.batch_size]
    words += ["--seconds", options.seconds, "--scale", *scale]
    path = [str(options.open_clip_packages)] if side == "open_clip" else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*path, *sys.path[1:]])}
    command = [sys.executable, "-m", "benchmarks.data", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> None:
    """The sides in turn, round by round; a table of medians."""
    found: dict[tuple[Any, str], list[dict[str, float]]] = {(scale, side): [] for scale in SCALES for side in SIDES}
    for _ in range(options.rounds):
        for scale, side in found:
            found[scale, side].append(run_side(side, scale, options))
    print(
        f"{options.shards}: {IMAGE_SIZE_PX} px, batches of {options.batch_size}, {options.workers} workers, {os.cpu_count()} cores, "
        f"medians of {options.rounds} rounds of {options.seconds:g} s"
    )
    print(f"{'crops':<12}{'':<20}{'images/s':>10}{'images/CPU s':>14}{'first batch s':>15}{'MB per worker':>15}")
    for scale in SCALES:
        median = {
            side: {name: statistics.median(row[name] for row in found[scale, side]) for name in found[scale, side][0]} for side in SIDES
        }
        for side, values in median.items():
            label = "decoding alone" if side == "decoding" else {"timix": "timix-pl"}.get(side, side)
            more = f"{values['first_batch_s']:>15.2f}{values['worker_mb']:>15.0f}" if "first_batch_s" in values else ""
            speed = f"{values['images_per_s']:>10.0f}{values['images_per_cpu_s']:>14.0f}"
            print(f"{f'{scale[0]:g} to {scale[1]:g}':<12}{label:<20}{speed}{more}")
        for other, label in (("open_clip", "of open_clip"), ("decoding", "of decoding")):
            ratios = [
                statistics.median(a[name] / b[name] for a, b in zip(found[scale, "timix"], found[scale, other], strict=True))
                for name in ("images_per_s", "images_per_cpu_s")
            ]
            print(f"{'':<12}{f'timix-pl, {label}':<20}{ratios[0]:>9.2f}x{ratios[1]:>13.2f}x")
    resumed = run_side("resume", SCALES[0], options)
    print("first batch of a run resumed at sample", "; ".join(f"{int(at):,}: {s:.2f} s" for at, s in resumed.items()))


def main() -> None:
    """Print a table, or the memory curve of a long loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="length of one measurement")
    parser.add_argument("--num-shards", type=int, default=8)
    parser.add_argument("--samples-per-shard", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the shards are made")
    parser.add_argument(
        "--open-clip-packages", type=Path, default=Path("build/bench/open_clip_train"), help="folder with webdataset 0.2.86"
    )
    parser.add_argument("--loop-minutes", type=float, help="print a memory curve over so many minutes instead")
    parser.add_argument("--scale", type=float, nargs=2, default=SCALES[0], help=argparse.SUPPRESS)
    parser.add_argument("--shards", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=[*SIDES, "resume"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.shards = options.shards or str(make_shards(options.folder, options.num_shards, options.samples_per_shard))
    measures = {
        "timix": lambda: measure_loader(timix_loader(options), options),
        "open_clip": lambda: measure_loader(open_clip_loader(options), options),
        "decoding": lambda: measure_decoding(options),
        "resume": lambda: measure_resume(options),
    }
    if options.side:
        print(json.dumps(measures[options.side]()))
    elif options.loop_minutes:
        loop(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
