"""Loader processes of a fork server, when the whole job gets a signal and when the training process is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing, os, signal, sys
from timix_pl.data.remote import transport
from timix_pl.data.loader import Loader

class Items:
    def __len__(self):
        return 400
    def __getitem__(self, number):
        return number

if __name__ == "__main__":
    transport._used = True
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    items = iter(Loader(Items(), num_workers=2))
    for _ in range(10):
        next(items)
    assert {child.__class__.__name__ for child in multiprocessing.active_children()} == {"ForkServerProcess"}
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(1 for _ in items), flush=True)
"""


@pytest.fixture
def loading(tmp_path):
    """A process that has had 10 of 400 batches, and waits for a line to take the rest. It leads a session."""
    (tmp_path / "script.py").write_text(SCRIPT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ = os.environ | {"PYTHONPATH": "src"}
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], **pipes, text=True, env=environ, start_new_session=True)
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    yield process
    for pid in processes_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def processes_of(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(folder.name))
    return found


def test_batches_come_after_the_whole_job_got_signals(loading):
    """As batch systems send them, to every process of the job."""
    others = set(processes_of(loading.pid)) - {loading.pid}
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        for pid in others:
            os.kill(pid, number)
        time.sleep(0.1)
        assert others <= set(processes_of(loading.pid)), number
    time.sleep(6)  # torch's workers look every 5 s whether their parent is still there
    said = loading.communicate("go on\n", timeout=60)
    assert (loading.returncode, said) == (0, ("390\n", ""))


def test_nothing_stays_when_the_training_process_is_killed(loading):
    assert len(processes_of(loading.pid)) >= 4, "it, the fork server and two workers"
    loading.kill()
    until = time.monotonic() + 15
    while processes_of(loading.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes_of(loading.pid)
