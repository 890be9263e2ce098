"""What is asked of SLURM. ``tests/slurm`` runs it on a real one."""

import os
import sys

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from timix_pl.config.compose import compose
from timix_pl.config.sweep import Job
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.launching.slurm import batch_parameters, submit

DEMO = ["experiment=demo", "launcher=slurm"]


def script(*words):
    return _make_sbatch_string("COMMAND", "runs/x/slurm", **batch_parameters(compose([*DEMO, *words])))


def test_the_batch_script_asks_for_what_was_configured():
    lines = script(
        "trainer=gpu",
        "trainer.num_nodes=8",
        "trainer.devices=4",
        "data.global_batch_size=1024",
        "launcher.partition=big",
        "launcher.cpus_per_task=6",
        "launcher.mem_gb=100",
        "launcher.signal_s=90",
        "launcher.max_requeues=3",
        "launcher.setup=['module load cuda']",
        'launcher.sbatch=["--constraint=a100",--exclusive]',
    ).splitlines()
    assert {
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --mem=102400MB",
        "#SBATCH --time=240",
        "#SBATCH --partition=big",
        "#SBATCH --signal=USR1@90",
        "#SBATCH --requeue",
        "#SBATCH --constraint=a100",
        "#SBATCH --exclusive",
        "#SBATCH --job-name=demo",
        "module load cuda",
        "if [ $status -eq 75 ] && [ ${SLURM_RESTART_COUNT:-0} -lt 3 ]; then",
    } <= set(lines)
    (srun,) = [line for line in lines if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in srun and "--cpus-per-task=6" in srun
    assert lines.index(srun) < lines.index("status=$?")


def test_a_run_on_the_cpu_asks_for_no_gpus():
    assert "gpus" not in script("trainer=cpu")


def test_without_submitit_or_slurm_the_way_out_is_told(tmp_path, monkeypatch):
    job = Job(DEMO, compose(DEMO))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no srun here"):
        submit([job], tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"submitit is not installed; pip install 'timix-pl\[slurm\]'"):
        submit([job], tmp_path)


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_a_job_that_sbatch_refuses_is_told_once_and_leaves_nothing(num_jobs, tmp_path, monkeypatch, capfd):
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    jobs = [Job(DEMO, compose(DEMO))] * num_jobs
    before = set(tmp_path.iterdir())
    with pytest.raises(RunError, match="sbatch refused the job: sbatch: error: invalid partition"):
        submit(jobs, tmp_path / "runs" / "x" / "slurm")
    assert capfd.readouterr() == ("", "")
    assert set(tmp_path.iterdir()) == before
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "1_0_log.out").touch()
    with pytest.raises(RunError):
        submit(jobs, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["1_0_log.out"]


def test_a_job_that_is_preempted_is_followed_until_it_has_run_again(tmp_path, monkeypatch, capfd):
    """Slurm shows PREEMPTED while the job saves its checkpoint, before it is PENDING again."""
    states = ["RUNNING", "PREEMPTED", "PENDING", "RUNNING", "COMPLETED"]
    (tmp_path / "states").write_text("".join(f"JobId=7 JobState={state}\n" for state in states))
    command = f"#!/bin/sh\nhead -n 1 {tmp_path}/states && sed -i 1d {tmp_path}/states\n"
    for name, text in {"scontrol": command, "srun": "#!/bin/sh\n", "sbatch": "#!/bin/sh\necho Submitted batch job 7\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("timix_pl.launching.slurm.POLL_S", 0)
    words = [*DEMO, "launcher.wait=true"]
    submit([Job(words, compose(words))], tmp_path / "slurm")
    told = [line.removeprefix("Job 7: ") for line in capfd.readouterr().out.splitlines() if line.startswith("Job 7: ")]
    assert told[1:] == states
