"""A real SLURM of one node on this machine, without systemd: its daemons, its files in one folder, its commands."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
CONF = """\
ClusterName=timix
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 State=UP
PartitionName=high Nodes=localhost MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""
"""A requeued job waits for the credentials of its first start to expire: ten seconds here, in place of 120."""


def missing() -> str:
    """Why there can be no such cluster here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (Debian: apt install slurm-wlm munge)" if absent else ""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start the daemons, wait for the node, set SLURM_CONF; stop them at the end."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf, key = folder / "slurm.conf", folder / "munge.key"
    conf.write_text(CONF.format(folder=folder, ports=_free_ports(2)))
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    os.environ["SLURM_CONF"] = str(conf)
    files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as stack:
        stack.callback(os.environ.pop, "SLURM_CONF")
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", *files],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "localhost"],
        ):
            stack.callback(_stop, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))
            time.sleep(1)
        _wait_for_the_node(folder)
        yield
        subprocess.run(["scancel", "--user=root"], check=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for_the_node(folder: Path) -> None:
    for _ in range(60):
        asked = subprocess.run(["sinfo", "--noheader", "--partition=low", "--format=%T"], capture_output=True, text=True)
        if asked.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    raise RuntimeError(
        f"the node did not come up: {asked}\n{(folder / 'slurmctld.log').read_text()}\n{(folder / 'slurmd.log').read_text()}"
    )


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
