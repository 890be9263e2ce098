"""Submit jobs to SLURM through submitit, which writes the batch script and names the log files."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from timix_pl.config.schema import LauncherConfig, RootConfig
from timix_pl.config.sweep import Job, words_of_a_rank
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, ConfigError, RunError
from timix_pl.core.files import missing_folders, remove_empty
from timix_pl.runs.slurm_resources import gpus_per_node

POLL_S = 5
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "PREEMPTED", "REQUEUED", "RESIZING", "SUSPENDED", "STOPPED")


def submit(jobs: Sequence[Job], folder: Path) -> None:
    """Submit one job, or the jobs of a sweep as one array, and print how to watch them. With ``launcher.wait``, wait until they end.

    Args:
        jobs: all request the same resources.
        folder: for the batch script, the logs and submitit's own files; the cluster's nodes must see it too.
    Raises:
        ConfigError: submitit is not installed, or this machine has no SLURM.
        RunError: SLURM refused the job, or with ``launcher.wait``: a job failed.
    """
    cfg = jobs[0].cfg
    executor = _executor(cfg, folder)
    made, before = missing_folders(folder), set(folder.glob("*"))
    try:
        with redirect_stderr(io.StringIO()):  # submitit also prints its error there
            if len(jobs) == 1:
                ids = [executor.submit(become_a_rank, jobs[0].in_run_dir()).job_id]
            else:
                ids = [job.job_id for job in executor.map_array(become_a_rank, [job.in_run_dir() for job in jobs])]
    except Exception as error:
        if type(error).__name__ != "FailedJobError":
            raise
        for path in set(folder.glob("*")) - before:
            path.unlink()
        remove_empty(made)
        raise RunError(f"launcher.kind=slurm: sbatch refused the job: {' '.join(str(error).split())}") from error
    whole = ids[0].partition("_")[0]
    for job_id, job in zip(ids, jobs, strict=True):
        print(f"Job {job_id}: {job.cfg.run_dir}, log {folder}/{job_id}_0_log.err")
    print(f"Watch: squeue -j {whole}; cancel: scancel {whole}", flush=True)
    if cfg.launcher.wait:
        _follow(whole, len(jobs))


def become_a_rank(words: Sequence[str]) -> None:
    """Replace this process, a task of a SLURM job, by ``timix-train``."""
    # Inside submitit's process, its signal handlers would requeue the job a second time.
    os.execv(sys.executable, [sys.executable, "-m", "timix_pl.cli.train", *words_of_a_rank(words)])


def batch_parameters(cfg: RootConfig) -> dict[str, Any]:
    """The resources of the batch script, as submitit's parameters."""
    launcher, trainer = cfg.launcher, cfg.trainer
    return {
        "job_name": cfg.name,
        "partition": launcher.partition,
        "account": launcher.account,
        "qos": launcher.qos,
        "time": launcher.time_min,
        "nodes": trainer.num_nodes,
        "ntasks_per_node": trainer.devices,
        "gpus_per_node": gpus_per_node(cfg),
        "cpus_per_task": launcher.cpus_per_task,
        "mem": None if launcher.mem_gb is None else f"{launcher.mem_gb * 1024:.0f}MB",
        "array_parallelism": launcher.max_parallel or 10_000,
        "setup": launcher.setup,
        "srun_args": [
            "--kill-on-bad-exit=1",
            "--open-mode=append",
            *([f"--cpus-per-task={launcher.cpus_per_task}"] if launcher.cpus_per_task else []),
        ],
        "teardown": _requeue_lines(launcher),
        "additional_parameters": {"requeue": True, "signal": f"USR1@{launcher.signal_s}"} | dict(map(_flag, launcher.sbatch)),
    }


def _flag(option: str) -> tuple[str, str | bool]:
    name, _, value = option.removeprefix("--").partition("=")
    return name, value or True


def _requeue_lines(launcher: LauncherConfig) -> list[str]:
    return [
        "status=$?",
        f"if [ $status -eq {STATUS_OF_A_STOPPED_RUN} ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {launcher.max_requeues} ]; then",
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        "exit $status",
    ]


def _executor(cfg: RootConfig, folder: Path) -> Any:
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise ConfigError(["launcher.kind=slurm: submitit is not installed; pip install 'timix-pl[slurm]'"]) from None
    try:
        executor = SlurmExecutor(folder)
    except RuntimeError as error:
        raise ConfigError(["launcher.kind=slurm: there is no srun here; start it on a node of the cluster that submits jobs"]) from error
    executor._internal_update_parameters(**batch_parameters(cfg))
    return executor


def _follow(job_id: str, num_jobs: int) -> None:
    """Print every change of state until all jobs have ended."""
    states: dict[str, str] = {}
    while len(states) < num_jobs or any(state in UNFINISHED for state in states.values()):
        time.sleep(POLL_S)
        asked = subprocess.run(["scontrol", "show", "job", "--oneliner", job_id], capture_output=True, text=True)
        if asked.returncode != 0:
            raise RunError(f"job {job_id} can no longer be followed, but may still run: {asked.stderr.strip()}")
        for line in asked.stdout.splitlines():
            fields = dict(re.findall(r"(\w+)=(\S+)", line))
            name = f"{job_id}_{fields['ArrayTaskId']}" if "ArrayTaskId" in fields else job_id
            if num_jobs > 1 and not fields["ArrayTaskId"].isdigit():
                continue  # one line for all jobs of the array that are still pending
            if states.get(name) != fields["JobState"]:
                states[name] = fields["JobState"]
                print(f"Job {name}: {states[name]}", flush=True)
    if failed := sorted(name for name, state in states.items() if state != "COMPLETED"):
        raise RunError(f"{len(failed)} of {num_jobs} jobs did not complete: {', '.join(failed)}; see their logs")
