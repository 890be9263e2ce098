"""Kill a run again and again, and show that it lost nothing and did nothing twice.

python -m tests.soak.soak --kills 100

A run of one or two ranks is ended at random moments, by SIGKILL to both ranks or to one, or by SIGTERM or SIGUSR1, and started again with
one rank or two. In the end the audit log must hold the samples of a run that nobody stopped, in the same order. With ``--ranks 1`` every
start has one rank, and the weights must be the same to the last bit.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.commands import write_scripts
from tests.preloaded import rank_1_of
from tests.soak.audit import audit
from tests.tiny import write_shards
from timix_pl.data.shards.local_tar import write_manifest

WORDS = """model=tiny trainer=cpu trainer.num_threads=1 trainer.log_every_n_steps=1 trainer.progress_bar=false data.global_batch_size=8
mixing.group_size=4 pta.batch_size=4 pta.every_n_steps=2 data.num_workers=1 evaluation.tasks=[] pictures.num_mixed=0 data.audit=true
data.max_bad_frac=1 checkpoint.every_n_steps=5 optim.schedule=constant optim.warmup_frac=0 optim.lr=1e-5""".split()  # noqa: SIM905
WAYS = ("SIGKILL group", "SIGKILL rank 0", "SIGKILL rank 1", "SIGTERM group", "SIGTERM rank 0", "SIGUSR1 rank 1", "SIGUSR1 group")
PATIENCE_S = 300

Popen = Callable[..., subprocess.Popen]


class Soak:
    """A folder with shards and the command, and runs in it, which ``popen`` starts."""

    def __init__(self, folder: Path, seed: int, popen: Popen = subprocess.Popen):
        self.folder, self.random, self.popen = folder, random.Random(seed), popen
        write_scripts(folder)
        write_shards(folder / "train", 100)
        write_shards(folder / "regions", 20, seed=1, num_regions=2)
        bad = folder / "train" / "shard-000003.tar"
        data = bytearray(bad.read_bytes())
        data[data.index(b"\x89PNG")] = 0  # no image any more: each time, the same sample must take its place
        bad.write_bytes(data)
        write_manifest(folder / "train")
        self.tally: Counter[str] = Counter()

    def start(self, name: str, num_ranks: int, max_steps: int = 1_000_000) -> subprocess.Popen:
        """Start or go on with a run, in a process group of its own."""
        shards = [f"data.train_shards={self.folder / 'train'}", f"data.region_shards={self.folder / 'regions'}"]
        words = [*WORDS, *shards, f"run_dir={self.folder / name}", f"trainer.max_steps={max_steps}", f"trainer.devices={num_ranks}"]
        log = (self.folder / f"{name}.log").open("a")
        with log:
            return self.popen([self.folder / "timix-train", *words], stdout=log, stderr=log, start_new_session=True)

    def steps(self, name: str) -> int:
        """The last step that the run has logged."""
        path = self.folder / name / "metrics.csv"
        if not path.exists():
            return 0
        with path.open(newline="") as file:
            return max((int(row["step"]) for row in csv.DictReader(file) if (row["step"] or "").isdigit()), default=0)

    def run_with_kills(self, name: str, num_kills: int, ranks: list[int]) -> int:
        """Start and kill so often, then let the run go on for some steps; returns its last step."""
        while (done := sum(self.tally.values())) < num_kills:
            print(f"\r{done} of {num_kills} kills, step {self.steps(name)}", end="", flush=True)
            num_ranks = self.random.choice(ranks)
            process = self.start(name, num_ranks)
            try:
                self._kill_at_some_moment(process, name, num_ranks)
            finally:
                send_group(process, signal.SIGKILL)
        last = self.steps(name) + 20
        self.run_to(name, last, ranks[0])
        return last

    def run_to(self, name: str, max_steps: int, num_ranks: int) -> None:
        """Start or go on with a run, and wait for its end."""
        status = self.start(name, num_ranks, max_steps).wait(PATIENCE_S)
        self._expect(status == 0, name, f"the run ended with status {status}")

    def _kill_at_some_moment(self, process: subprocess.Popen, name: str, num_ranks: int) -> None:
        """Wait for some steps, or for some part of a start, and end the run."""
        started, before = time.monotonic(), self.steps(name)
        trains = self.random.random() < 0.8
        if trains:
            wanted = before + self.random.randint(1, 12)
            while self.steps(name) < wanted:
                self._expect(process.poll() is None, name, f"the run ended by itself with status {process.returncode}")
                self._expect(time.monotonic() - started < PATIENCE_S, name, "the run makes no progress")
                time.sleep(0.02)
            time.sleep(self.random.uniform(0, 0.1))
        else:
            time.sleep(self.random.uniform(0, 10))
        way = self.random.choice([way for way in WAYS if num_ranks == 2 or "rank 1" not in way])
        word, whom = way.split(" ", 1)
        number = getattr(signal, word)
        if whom == "group":
            send_group(process, number)
        elif whom == "rank 0":
            process.send_signal(number)
        elif rank_1 := rank_1_of(process):
            os.kill(rank_1, number)
        else:
            return
        status = process.wait(PATIENCE_S)
        if trains and number != signal.SIGKILL:
            self._expect(status == 75, name, f"{way}: the run ended with status {status} instead of 75")
            saved = max((self.folder / name / "checkpoints").glob("step-*.ckpt")).name
            self._expect(saved == f"step-{self.steps(name):08d}.ckpt", name, f"{way}: the last step is not saved, but {saved}")
        self.tally[f"{way if num_ranks == 2 else word}, {'while it trains' if trains else 'while it starts'}"] += 1

    def _expect(self, held: bool, name: str, otherwise: str) -> None:
        if not held:
            raise SystemExit(f"{otherwise}\n{(self.folder / name).with_suffix('.log').read_text()[-4000:]}")


def send_group(process: subprocess.Popen, number: int) -> None:
    """To all that is left of a run: its ranks, their loader processes."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def main(arguments: Sequence[str] | None = None, popen: Popen = subprocess.Popen) -> int:
    """Run it and print the tally.

    Returns:
        0, or 1 where anything differs.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, choices=(1, 2), nargs="+", default=[1, 2], help="numbers of ranks to start with")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), seed=options.seed, popen=popen)
        started = time.monotonic()
        last = soak.run_with_kills("killed", options.kills, options.ranks)
        soak.run_to("whole", last, options.ranks[0])
        print(f"\n{sum(soak.tally.values())} kills of a run of {last} steps in {(time.monotonic() - started) / 60:.0f} minutes")
        for way, count in sorted(soak.tally.items()):
            print(f"  {count:>4} {way}")
        whole, killed = audit(soak.folder / "whole"), audit(soak.folder / "killed")
        same = True
        for name, one, two in zip(("pairs", "region images"), whole, killed, strict=True):
            seen, positions = Counter(line["position"] for line in two), {line["position"] for line in one}
            lost, twice = len(positions - seen.keys()), sum(count - 1 for count in seen.values())
            replaced = sum(bool(line["replaces"]) for line in two)
            print(f"{name}: {len(two)}, {lost} lost, {twice} twice, {replaced} replacements; same order as unbroken: {one == two}")
            same &= one == two and bool(one)
        if options.ranks == [1]:
            one, two = (torch.load(soak.folder / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "killed"))
            equal = all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])
            print(f"weights: {'the same to the last bit' if equal else 'different'}")
            same &= equal
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
