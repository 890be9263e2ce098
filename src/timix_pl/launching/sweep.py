"""A sweep on this machine: one job after another, each in new processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from timix_pl.config.sweep import Job
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
STATUS_OF_CTRL_C = 130


def run_in_turn(jobs: Sequence[Job]) -> None:
    """Run every job. The sweep continues after a job that fails.

    Raises:
        RunError: jobs failed; each printed its own message.
        SystemExit: a signal stopped the sweep or a job; status 75, or 130 after Ctrl-C.
    """
    failed = []
    with _Relay() as relay:
        for number, job in enumerate(jobs):
            print(f"Run {number}: {' '.join(job.words)}, in {job.cfg.run_dir}", flush=True)
            status = relay.run([sys.executable, "-m", "timix_pl.cli.train", *job.in_run_dir()])
            if relay.heard:
                status = STATUS_OF_CTRL_C if relay.heard == signal.SIGINT else STATUS_OF_A_STOPPED_RUN
            if status in (STATUS_OF_CTRL_C, STATUS_OF_A_STOPPED_RUN):
                print(f"The sweep stops at run {number} of {len(jobs)}; the same command resumes it", file=sys.stderr)
                sys.exit(status)
            if status != 0:
                failed.append(f"run {number} ({job.cfg.run_dir}) with status {status}")
    if failed:
        raise RunError(f"{len(failed)} of {len(jobs)} runs failed: {', '.join(failed)}; the same command tries them again")


class _Relay:
    """Runs each process in its own process group, and forwards the signals that arrive to it, as a terminal would."""

    def __init__(self) -> None:
        self.heard = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: list[str]) -> int:
        """Run a command until it ends. Returns its exit status, or 128 + n if signal n ended it."""
        self._process = subprocess.Popen(command, process_group=0)
        if self.heard:  # a signal that arrived before the process existed
            self._pass_on(self.heard)
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
