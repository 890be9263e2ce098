"""Training beside open_clip's own: a plain step, whole runs that load JPEGs, and two ranks beside one. The sides take turns.

``step``: batches that are there already, so that nothing is loaded; open_clip_train's own loop, and ours under Lightning's Trainer.
``end_to_end``: its own main function and ``timix-train`` on the same shards, each in a process of its own; the figures are those that each
logs after its warm-up. ``all_cores``: the same with a thread on each core, beside the loader's processes. ``ranks``: ``timix-train`` with
two processes and with one, the same global batch, one thread and one loader process for each rank. All in fp32, without mixing and PTA.
open_clip's loader needs webdataset 0.2.86, which ``make bench`` puts into a folder of its own.

make bench
python -m benchmarks.training --compare step --architecture ViT-B-32 --batch-size 32
"""

import argparse
import csv
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.data import make_shards
from benchmarks.ready_made import open_clip_step_s, step_s
from timix_pl.core import architectures
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.training.objective import Contrastive, Objective

OPEN_CLIP = "import sys, open_clip; open_clip.add_model_config(sys.argv[1]); from open_clip_train.main import main; main(sys.argv[2:])"
TIMIX_TRAIN = str(Path(sys.executable).with_name("timix-train"))
PLAIN = """trainer=cpu trainer.progress_bar=false trainer.precision=fp32 optim.clip_grad_norm=null mixing=none pta.enabled=false pta.block=1
evaluation.tasks=[] checkpoint.every_n_steps=null checkpoint.every_n_minutes=null pictures.num_mixed=0
pictures.num_heat_maps=0""".split()  # noqa: SIM905


def plain_steps(options: argparse.Namespace) -> tuple[float, float]:
    """Samples per second of theirs and ours on ready-made batches."""
    length = {"num_steps": options.num_steps, "warm_up": options.warm_up}
    theirs_s = open_clip_step_s(options.architecture, options.batch_size, **length)
    torch.manual_seed(0)
    model = DualEncoder.create(options.architecture, pta_block=1, with_pta=False)
    return options.batch_size / theirs_s, options.batch_size / step_s(model, Objective(Contrastive()), options.batch_size, **length)


def end_to_end(options: argparse.Namespace) -> tuple[float, float]:
    """Samples per second of theirs and ours in whole runs."""
    return runs(options, options.threads)


def all_cores(options: argparse.Namespace) -> tuple[float, float]:
    """The same with a thread on each core, as both commands do unless they are told otherwise."""
    return runs(options, os.cpu_count() or 1)


def runs(options: argparse.Namespace, num_threads: int) -> tuple[float, float]:
    """A run of theirs and one of ours."""
    return run_open_clip(options, num_threads), run_timix(options, num_ranks=1, num_threads=num_threads, num_workers=options.workers)


def ranks(options: argparse.Namespace) -> tuple[float, float]:
    """Samples per second of one rank and of two."""
    one, two = (run_timix(options, num_ranks=num_ranks, num_threads=1, num_workers=1) for num_ranks in (1, 2))
    return one, two


COMPARISONS = {
    "step": (plain_steps, "a plain step, nothing loaded", ("open_clip_train", "timix-pl")),
    "end_to_end": (end_to_end, "a run that loads JPEGs", ("open_clip_train", "timix-pl")),
    "all_cores": (all_cores, "with a thread on each core", ("open_clip_train", "timix-pl")),
    "ranks": (ranks, "two ranks beside one", ("one rank", "two ranks")),
}


def run_timix(options: argparse.Namespace, *, num_ranks: int, num_threads: int, num_workers: int) -> float:
    """Samples per second that ``timix-train`` logged between its warm-up and its end."""
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "run_dir": f"{folder}/run",
            "data.train_shards": options.shards,
            "data.global_batch_size": options.batch_size,
            "data.num_workers": num_workers,
            "model.architecture": options.architecture,
            "trainer.devices": num_ranks,
            "trainer.num_threads": num_threads,
            "trainer.max_steps": num_logged_steps(options),
            "trainer.log_every_n_steps": options.warm_up,
        }
        run([TIMIX_TRAIN, *PLAIN, *(f"{key}={value}" for key, value in words.items())], num_threads)
        rows = csv.DictReader(Path(folder, "run/metrics.csv").read_text().splitlines())
        step_s = {int(row["step"]): options.batch_size / float(row["train/samples_per_s"]) for row in rows}
    return samples_per_s(options, step_s)


def run_open_clip(options: argparse.Namespace, num_threads: int) -> float:
    """Samples per second that ``open_clip_train`` logged between its warm-up and its end."""
    num_tars = len(list(Path(options.shards).glob("*.tar")))
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "logs": folder,
            "name": "run",
            "train-data": f"{options.shards}/shard-{{000000..{num_tars - 1:06d}}}.tar",
            "train-num-samples": num_logged_steps(options) * options.batch_size,
            "epochs": 1,
            "batch-size": options.batch_size,
            "workers": options.workers,
            "model": options.architecture,
            "precision": "fp32",
            "device": "cpu",
            "log-every-n-steps": options.warm_up,
        }
        pairs = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-c", OPEN_CLIP, str(architectures.FOLDER), *pairs]
        run(command, num_threads, path=str(options.open_clip_packages))
        log = Path(folder, "run/out.log").read_text()
    logged = re.findall(r"Train Epoch: 0 \[ *(\d+)/.* Batch \(t\): ([\d.]+)", log)
    return samples_per_s(options, {int(num_samples) // options.batch_size - 1: float(seconds) for num_samples, seconds in logged})


def run(command: list[str], num_threads: int, path: str = "") -> None:
    """Run a side to its end.

    Raises:
        SystemExit: it failed, with what it said.
    """
    folders = os.pathsep.join(filter(None, [path, *sys.path[1:]]))
    environment = os.environ | {"OMP_NUM_THREADS": str(num_threads), "PYTHONPATH": folders}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed:\n{done.stderr[-3000:]}")


def num_logged_steps(options: argparse.Namespace) -> int:
    """The warm-up, the steps that count, and as many as the warm-up has behind them, so that the loaders have work to the end."""
    return options.num_steps + 2 * options.warm_up


def samples_per_s(options: argparse.Namespace, step_s: dict[int, float]) -> float:
    """From the mean seconds of a step since the last log, by step: of the steps that count."""
    end = options.warm_up + options.num_steps
    return options.batch_size / statistics.mean(seconds for step, seconds in step_s.items() if options.warm_up < step <= end)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS), help="default: all")
    parser.add_argument("--architecture", default="timix-tiny")
    parser.add_argument("--batch-size", type=int, default=64, help="global batch size")
    parser.add_argument("--threads", type=int, default=1, help="of step and end_to_end")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of end_to_end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-steps", type=int, default=10, help="steps that count in each round; a multiple of --warm-up")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before them")
    parser.add_argument("--num-shards", type=int, default=8)
    parser.add_argument("--samples-per-shard", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the shards are made")
    parser.add_argument(
        "--open-clip-packages", type=Path, default=Path("build/bench/open_clip_train"), help="folder with webdataset 0.2.86"
    )
    options = parser.parse_args()
    if options.num_steps % options.warm_up:
        parser.error(f"--num-steps={options.num_steps} is no multiple of --warm-up={options.warm_up}")
    options.shards = str(make_shards(options.folder, options.num_shards, options.samples_per_shard))
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of weights that nobody asked for
    torch.set_num_threads(options.threads)
    print(
        f"{options.architecture}, batches of {options.batch_size}, fp32, {options.threads} threads, {options.workers} workers, "
        f"{os.cpu_count()} cores, {options.shards}; medians of {options.rounds} rounds of {options.num_steps} steps, samples/s"
    )
    for name in options.compare:
        measure, title, sides = COMPARISONS[name]
        rounds = [measure(options) for _ in range(options.rounds)]
        before, after = (statistics.median(side) for side in zip(*rounds, strict=True))
        ratio = statistics.median(after / before for before, after in rounds)
        print(f"{title:<30}{sides[0]:>16} {before:>7.0f}{sides[1]:>13} {after:>7.0f}{ratio:>8.2f}x", flush=True)


if __name__ == "__main__":
    main()
