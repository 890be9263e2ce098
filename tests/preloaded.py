"""Commands that need not import PyTorch: ``popen`` starts one, and so do the launchers that run in one.

Such a command is a fork of a *template*: a process that has the libraries imported, and does nothing else. It is a child of the process
that started it, in its group and with its streams, so it hears signals, is killed and is waited for as any other. It has a template of
its own, as one more child, for what it starts in turn: ranks of Lightning or torchrun, jobs of a sweep. Three things differ from a new
process: ``/proc/PID/environ`` is not its own (``rank_1_of`` finds ranks), it ends without taking the interpreter apart, and torchrun's
event log does not name methods, which takes seconds.
"""

import atexit
import ctypes
import functools
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.elastic.rendezvous import dynamic_rendezvous

from tests.commands import SCRIPTS
from tests.fork_server import forget_fork_server, start_fork_server

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36

new_process = subprocess._fork_exec
prctl = ctypes.CDLL(None).prctl


def popen(command: Sequence[str | Path], **options: Any) -> subprocess.Popen:
    """``subprocess.Popen`` of ``python -m MODULE ...``, ``python SCRIPT ...`` or a console script; any other is started as usual.

    ``preexec_fn`` must be a function that can be pickled.
    """
    subprocess._fork_exec = functools.partial(_fork_exec, _template_of_tests())
    try:
        return subprocess.Popen(command, **options)
    finally:
        subprocess._fork_exec = new_process


def rank_1_of(process: subprocess.Popen) -> int | None:
    """The process that Lightning started beside rank 0, a fork or not; none before it has."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if _is_rank_1(Path("/proc") / pid)), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_rank_1(process: Path) -> bool:
    return (process / "comm").read_text() == "rank 1\n" or b"\0LOCAL_RANK=1\0" in (process / "environ").read_bytes()


@functools.cache
def _template_of_tests() -> socket.socket:
    """The connection to a template that the fork server makes."""
    start_fork_server()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        multiprocessing.get_context("forkserver").Process(target=_serve, args=(its,)).start()
    atexit.register(ours.close)  # it ends then
    return ours


def _template_of_this_process() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _serve(its)
    its.close()
    return ours


def _serve(requests: socket.socket) -> NoReturn:
    """The life of a template."""
    os.setpgid(0, 0)  # a signal to the group of the process that it serves does not mean it
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # nor one that a launcher sends to all of its children
    prctl(PR_SET_NAME, b"template", 0, 0, 0)
    dynamic_rendezvous.get_method_name = lambda depth=0: ""  # it would search all modules
    while True:
        request, streams, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            between = os.getpid()
            if os.fork() != 0:
                os._exit(0)  # the process that asked adopts the child
            while os.getppid() == between:
                time.sleep(0.001)
            requests.send(str(os.getpid()).encode())
            requests.close()
            _run(streams, *pickle.loads(request))
        os.wait()
        for stream in streams:
            os.close(stream)


def _fork_exec(template: socket.socket, command: list[str], *options: Any) -> int:
    """What ``subprocess.Popen`` calls: the same arguments, the same result."""
    words = [os.fsdecode(word) for word in command]
    if words[0] == sys.executable:
        words = words[2:] if words[1] == "-u" else words[1:]  # torchrun asks ranks to write at once; they do when they end
    elif Path(words[0]).name not in SCRIPTS:
        return new_process(command, *options)
    _, _, _, cwd, environment, stdin, _, _, stdout, _, stderr, _, _, _, new_session, group, _, _, _, _, prepare, *_ = options
    variables = dict(os.environ) if environment is None else dict(os.fsdecode(pair).split("=", 1) for pair in environment)
    group = os.getpgid(0) if group == -1 else group
    request = pickle.dumps((words, os.path.abspath(cwd or "."), variables, new_session, group, prepare))
    streams = [own if given == -1 else given for own, given in enumerate((stdin, stdout, stderr))]
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(template, [request], streams)
        return int(template.recv(16))
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _run(
    streams: list[int],
    words: list[str],
    cwd: str,
    variables: dict[str, str],
    new_session: bool,
    group: int,
    prepare: Callable[[], object] | None,
) -> NoReturn:
    """Become the process that was asked for."""
    if new_session:
        os.setsid()
    else:
        os.setpgid(0, group)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = os.fdopen(1, "w", closefd=False)  # the template's may belong to a file, in which one can seek
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = [folder for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]
    rank_zero_only.rank = _get_rank() or 0  # Lightning reads it when it is imported
    prctl(PR_SET_NAME, f"rank {rank_zero_only.rank}".encode(), 0, 0, 0)
    forget_fork_server()
    if prepare is not None:
        prepare()
    subprocess._fork_exec = functools.partial(_fork_exec, _template_of_this_process())
    status: object = 0
    try:
        _run_main(words)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def _run_main(words: list[str]) -> None:
    sys.path.insert(0, os.getcwd() if words[0] == "-m" else str(Path(words[0]).resolve().parent))
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
