"""The start on a set of web scale: a simulated folder of many shards, from its names on the disk to the first positions of an epoch.

python -m benchmarks.manifest --num-shards 500000 --samples-per-shard 10000

The shards are empty files, so that the folder and every look at a file are real, and no sample is.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timix_pl.data.order import SourceOrder
from timix_pl.data.shards.manifest import MANIFEST_NAME
from timix_pl.data.shards.sources import resolve_shards


def write_folder(folder: Path, num_shards: int, samples_per_shard: int) -> None:
    """Empty files, and a manifest that says that each holds ``samples_per_shard`` samples."""
    with (folder / MANIFEST_NAME).open("w") as manifest:
        manifest.write('{"shards": [')
        for number in range(num_shards):
            path = folder / f"shard-{number:06d}.tar"
            path.touch()
            fields = {"name": path.name, "num_samples": samples_per_shard, "num_bytes": 0, "mtime_ns": path.stat().st_mtime_ns}
            fields |= {"num_problems": 0, "digest": hashlib.sha256(path.name.encode()).hexdigest()}
            manifest.write((",\n" if number else "\n") + json.dumps(fields))
        manifest.write("\n]}\n")


def measure(what: str, act: Callable[[], Any]) -> Any:
    """Run it once; print its seconds, those of them on the processor, and the process's peak memory so far."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = act()
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"{what:<46}{seconds:>9.3f} s{cpu_s:>9.3f} s{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:>9.0f} MB")
    return result


def start_on(folder: Path, window_shards: int, batch_size: int) -> None:
    """What every rank does at its start, step by step."""
    print(f"{'':<46}{'time':>11}{'CPU':>11}{'peak':>12}")
    measure("nothing yet (Python, numpy)", lambda: None)
    (source,) = measure("names on the disk against the manifest", lambda: resolve_shards(folder))
    manifest = measure("manifest, with a look at each file", source.tars.manifest)
    order = measure("order", lambda: SourceOrder(manifest.shards.sizes, seed=0, name="train", window_shards=window_shards))
    middle, last = manifest.num_samples // 2, manifest.num_samples - batch_size
    for what, position in (("start", 0), ("middle", middle), ("end", last), ("start of the next epoch", manifest.num_samples)):
        measure(f"a batch of {batch_size:,} at the {what}", lambda position=position: order.locate(position, position + batch_size))
    measure("the batch after that", lambda: order.locate(position + batch_size, position + 2 * batch_size))


def main() -> None:
    """Print a table of seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-shards", type=int, default=500_000)
    parser.add_argument("--samples-per-shard", type=int, default=10_000)
    parser.add_argument("--window-shards", type=int, default=8, help="data.shuffle_window_shards")
    parser.add_argument("--batch-size", type=int, default=32_768, help="data.global_batch_size")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        start_on(options.folder, options.window_shards, options.batch_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), options.num_shards, options.samples_per_shard)
        total = options.num_shards * options.samples_per_shard
        print(f"{options.num_shards:,} shards of {options.samples_per_shard:,} samples: {total:,}", flush=True)
        words = ["--folder", folder, "--window-shards", str(options.window_shards), "--batch-size", str(options.batch_size)]
        subprocess.run([sys.executable, "-m", "benchmarks.manifest", *words], check=True)  # a process of its own: its memory alone


if __name__ == "__main__":
    main()
