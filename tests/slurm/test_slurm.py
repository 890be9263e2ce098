"""``launcher=slurm`` on a real SLURM: ``make test-slurm`` shows what happens, line by line."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.commands import REPOSITORY, write_scripts
from tests.slurm.cluster import cluster, missing
from tests.tiny import write_shards

pytestmark = pytest.mark.slurm
WORDS = """model=tiny trainer=cpu trainer.devices=2 trainer.num_threads=1 trainer.log_every_n_steps=1 trainer.progress_bar=false
data.num_workers=1 data.train_shards=train data.region_shards=regions data.audit=true data.global_batch_size=8 mixing.group_size=4
pta.batch_size=4 evaluation.tasks=[] pictures.num_mixed=0 checkpoint.every_n_steps=null checkpoint.every_n_minutes=null""".split()  # noqa: SIM905


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user of the cluster, with shards and the commands."""
    if why := missing():
        pytest.skip(f"no SLURM here: {why}")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "cluster").mkdir()
    write_shards(folder / "train", 20)
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    os.environ["PATH"] = f"{write_scripts(folder)}{os.pathsep}{os.environ['PATH']}"
    version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout.strip()
    print()
    say(f"start munged, slurmctld and slurmd of {version}")
    with cluster(folder / "cluster"):
        yield folder


def train(folder: Path, *words: str) -> subprocess.Popen[str]:
    say(f"$ timix-train {' '.join(words)} ...")
    command = [sys.executable, folder / "timix-train", *words, *WORDS]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output_of(process: subprocess.Popen[str], status: int = 0, *, quiet: bool = False) -> str:
    """What it printed, which is said as well."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if not quiet:
            say(f"    {line.rstrip()}")
    assert process.wait() == status, "".join(lines)
    return "".join(lines)


def job_id(folder: Path, run: str) -> str:
    """The job of a run that is submitted."""
    while not (scripts := list((folder / run / "slurm").glob("*_submission.sh"))):
        time.sleep(0.5)
    return scripts[0].name.partition("_")[0]


def facts(job: str) -> dict[str, str]:
    shown = subprocess.run(["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"(\w+)=(\S+)", shown))


def control(*words: str) -> None:
    say(f"$ {' '.join(words)}")
    subprocess.run(words, check=True)


def steps(run: Path) -> int:
    path = run / "metrics.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def wait_until_it_trains(folder: Path, run: str, job: str, restarts: int) -> None:
    """Wait for a few more steps of the job's start number ``restarts``."""
    before = None
    while True:
        now, state = steps(folder / run), facts(job)
        if state["JobState"] == "RUNNING" and int(state["Restarts"]) == restarts:
            if before is None:
                before = now
            elif now > before + 3:
                say(f"    job {job} has trained {now} steps, after {restarts} restarts")
                return
        assert state["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "PREEMPTED"), state
        time.sleep(0.2)


def audit(run: Path) -> list[dict]:
    """What was trained on, in order."""
    lines = [json.loads(line) for path in run.glob("audit-*.jsonl") for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: (line["stream"], line["position"]))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def compare(run: Path, whole: Path) -> None:
    one, other = weights(run), weights(whole)
    assert audit(run) == audit(whole)
    assert all(torch.equal(one[name], other[name]) for name in other)
    say(f"{run.name} equals the unbroken run: {len(audit(run))} samples in the same order, weights the same to the last bit")


def test_a_job_that_is_preempted_three_times_ends_like_one_that_is_not(folder: Path) -> None:
    words = ["trainer.max_steps=1000"]
    following = train(folder, "launcher=slurm", "launcher.wait=true", "run_dir=preempted", "launcher.partition=low", *words)
    job = job_id(folder, "preempted")
    wait_until_it_trains(folder, "preempted", job, 0)
    control("scontrol", "requeue", job)
    wait_until_it_trains(folder, "preempted", job, 1)
    control("sbatch", "--quiet", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 10")
    wait_until_it_trains(folder, "preempted", job, 2)
    minutes = 1 + int(facts(job)["RunTime"].split(":")[1]) + 1
    control("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")  # so that the 120 s before its end have begun
    while int(facts(job)["Restarts"]) < 3:
        assert facts(job)["JobState"] in ("RUNNING", "COMPLETING", "PENDING", "PREEMPTED"), facts(job)
        time.sleep(0.5)
    control("scontrol", "update", f"JobId={job}", "TimeLimit=240")
    assert "COMPLETED" in output_of(following)
    log = (folder / "preempted/slurm" / f"{job}_0_log.err").read_text()
    say("rank 0 said:")
    for line in re.findall(r"^(?:SIG|stopped|going on).*", log, re.M):
        say(f"    {line}")
    assert log.count("SIGUSR1: the run saves") == 1 and log.count("resuming from") == 3
    unbroken = train(folder, "run_dir=unbroken", *words)
    output_of(unbroken, quiet=True)
    compare(folder / "preempted", folder / "unbroken")


def test_a_sweep_is_one_array(folder: Path) -> None:
    words = ["trainer.max_steps=20", "launcher=slurm", "launcher.wait=true", "launcher.max_parallel=2", "run_dir=sweep"]
    said = output_of(train(folder, "-m", "seed=0,1,2", *words))
    assert said.count("COMPLETED") == 3
    for seed in (0, 1, 2):
        assert f"seed: {seed}" in (folder / f"sweep/{seed}/config.yaml").read_text()
    output_of(train(folder, "run_dir=alone", "seed=1", "trainer.max_steps=20"), quiet=True)
    compare(folder / "sweep/1", folder / "alone")


def test_one_ranks_error_ends_the_job_with_its_message(folder: Path) -> None:
    (folder / "broken").mkdir()
    (folder / "broken/audit-1.jsonl").symlink_to("/nowhere/audit")
    said = output_of(train(folder, "launcher=slurm", "launcher.wait=true", "run_dir=broken", "trainer.max_steps=1000000"), status=2)
    assert "1 of 1 jobs did not complete" in said
    logs = "".join(path.read_text() for path in (folder / "broken/slurm").glob("*_log.err"))
    assert logs.count("timix-train: rank 1: error: [Errno 2] No such file or directory") == 1 and "Traceback" not in logs


def test_a_cancelled_job_stays_cancelled(folder: Path) -> None:
    output_of(train(folder, "launcher=slurm", "run_dir=cancelled", "trainer.max_steps=1000000"))
    job = job_id(folder, "cancelled")
    wait_until_it_trains(folder, "cancelled", job, 0)
    control("scancel", job)
    while facts(job)["JobState"] in ("RUNNING", "COMPLETING"):
        time.sleep(0.5)
    time.sleep(15)
    say(f"    job {job} is {facts(job)['JobState']}")
    assert facts(job)["JobState"] == "CANCELLED" and steps(folder / "cancelled") > 0
    assert (folder / "cancelled/checkpoints/last.ckpt").exists()


def test_a_batch_script_of_ones_own_is_requeued_too(folder: Path) -> None:
    """The script of docs/launching.md, with two processes in place of 64 GPUs."""
    (script,) = re.findall(r"^```sh\n(#!/bin/bash\n.*?)^```", (REPOSITORY / "docs/launching.md").read_text(), re.M | re.S)
    script = re.sub(r"--nodes=\d+", "--nodes=1", script)
    script = re.sub(r"--ntasks-per-node=\d+", "--ntasks-per-node=2", script)
    script = re.sub(r"#SBATCH --(gpus|cpus|time).*\n", "", script)
    words = f"{' '.join(WORDS)} run_dir=own trainer.max_steps=1000000"
    script, replaced = re.subn(r"timix-train .*", f"timix-train {words}", script)
    assert replaced == 1
    (folder / "own.sh").write_text(script)
    submitted = subprocess.run(["sbatch", "--parsable", "own.sh"], cwd=folder, capture_output=True, text=True, check=True)
    job = submitted.stdout.strip()
    say(f"$ sbatch own.sh: job {job}")
    wait_until_it_trains(folder, "own", job, 0)
    control("scancel", "--signal=USR1", job)
    wait_until_it_trains(folder, "own", job, 1)
    control("scancel", job)
