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
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.commands import write_scripts
from tests.soak.audit import audit
from tests.tiny import write_shards
from timix_pl.data.index import write_manifest

WORDS = """model=tiny trainer=cpu trainer.num_threads=1 trainer.log_every_n_steps=1 trainer.progress_bar=false data.global_batch_size=8
mixing.group_size=4 pta.batch_size=4 pta.every_n_steps=2 data.num_workers=1 evaluation.tasks=[] pictures.num_mixed=0 data.audit=true
data.max_bad_frac=1 checkpoint.every_n_steps=5 optim.schedule=constant optim.lr=1e-5""".split()  # noqa: SIM905
WAYS = ("SIGKILL both", "SIGKILL rank 0", "SIGKILL rank 1", "SIGTERM both", "SIGTERM rank 0", "SIGUSR1 rank 1")
STOPPED = {0, 75, -signal.SIGKILL}
LONGEST_START_S = 300


class Soak:
    """A folder with shards and the command, and runs in it."""

    def __init__(self, folder: Path, num_steps: int, seed: int):
        self.folder, self.num_steps, self.random = folder, num_steps, random.Random(seed)
        write_scripts(folder)
        write_shards(folder / "train", 100)
        write_shards(folder / "regions", 20, seed=1, num_regions=2)
        bad = folder / "train" / "shard-000003.tar"
        data = bytearray(bad.read_bytes())
        data[data.index(b"\x89PNG")] = 0  # no image any more: each time, the same sample must take its place
        bad.write_bytes(data)
        write_manifest(folder / "train")
        self.tally: Counter[str] = Counter()

    def start(self, name: str, num_ranks: int) -> subprocess.Popen:
        """Start or go on with a run."""
        shards = [f"data.train_shards={self.folder / 'train'}", f"data.region_shards={self.folder / 'regions'}"]
        words = [*WORDS, *shards, f"run_dir={self.folder / name}", f"trainer.max_steps={self.num_steps}", f"trainer.devices={num_ranks}"]
        log = (self.folder / f"{name}.log").open("a")
        with log:
            return subprocess.Popen([self.folder / "timix-train", *words], stdout=log, stderr=log, start_new_session=True)

    def steps(self, name: str) -> int:
        """The last step that the run has logged."""
        path = self.folder / name / "metrics.csv"
        if not path.exists():
            return 0
        with path.open(newline="") as file:
            return max((int(row["step"]) for row in csv.DictReader(file) if (row["step"] or "").isdigit()), default=0)

    def kill_at_some_moment(self, process: subprocess.Popen, name: str, num_ranks: int) -> bool:
        """Wait for some steps, or for some part of a start, and end the run; False where it had ended by itself."""
        started, before = time.monotonic(), self.steps(name)
        if self.random.random() < 0.2:
            moment = "while it starts"
            time.sleep(self.random.uniform(0, 10))
        else:
            moment = "while it trains"
            wanted = before + self.random.randint(1, 12)
            while self.steps(name) < wanted and process.poll() is None:
                assert time.monotonic() - started < LONGEST_START_S, "the run makes no progress"
                time.sleep(0.02)
            time.sleep(self.random.uniform(0, 0.1))
        if process.poll() is not None:
            return False
        way = self.random.choice([way for way in WAYS if num_ranks == 2 or "rank 1" not in way])
        word, _, whom = way.partition(" ")
        number = getattr(signal, word)
        ranks = {"both": [process.pid, *ranks_beside(process)], "rank 0": [process.pid], "rank 1": ranks_beside(process)}[whom]
        for pid in ranks:
            send(pid, number)
        self.tally[f"{way if num_ranks == 2 else word}, {moment}"] += bool(ranks)
        return bool(ranks)

    def run_with_kills(self, name: str, num_kills: int, ranks: list[int]) -> None:
        """Start and kill until the kills are used up, then let it end."""
        done = 0
        while True:
            num_ranks = self.random.choice(ranks)
            process = self.start(name, num_ranks)
            killed = done < num_kills and self.kill_at_some_moment(process, name, num_ranks)
            try:
                status = process.wait(LONGEST_START_S if not killed else 120)
            finally:
                end_all(process)
            done += killed
            if not killed and status == 0 and self.steps(name) >= self.num_steps:
                return
            if not killed and status not in STOPPED:
                raise SystemExit(f"the run ended with status {status}; its output is in {self.folder / name}.log")
            print(f"\r{done} of {num_kills} kills, step {self.steps(name)} of {self.num_steps}", end="", flush=True)


def ranks_beside(process: subprocess.Popen) -> list[int]:
    """The ranks that Lightning started beside rank 0; none before it has."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"\0LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()][:1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def send(pid: int, number: int) -> None:
    """To a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end_all(process: subprocess.Popen) -> None:
    """Whatever of the run is left: a rank that lost the others, and loader processes."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main(arguments: Sequence[str] | None = None) -> int:
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
        soak = Soak(Path(folder), num_steps=max(40, 8 * options.kills), seed=options.seed)
        started = time.monotonic()
        soak.run_with_kills("whole", 0, options.ranks[:1])
        soak.run_with_kills("killed", options.kills, options.ranks)
        print(f"\n{sum(soak.tally.values())} kills of a run of {soak.num_steps} steps in {(time.monotonic() - started) / 60:.0f} minutes")
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
