"""Run this node's processes under PyTorch's elastic agent, as ``torchrun`` does, but with our signal handling and exit statuses."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from torch.cuda import device_count
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.config.sweep import words_of_a_rank
from timix_pl.core.errors import RunError
from timix_pl.core.words import as_typed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def run_under_torchrun(cfg: RootConfig, words: Sequence[str]) -> int:
    """Start this node's ranks, forward the signals that arrive to them, and wait until they end.

    The command ``torchrun`` cannot do this: on SIGTERM it kills ranks that need more than 30 s, SIGUSR1 ends it but not its ranks, and its
    exit status is 1 whatever the ranks' status is.

    Args:
        cfg: the configuration that ``words`` give.
        words: overrides for the ranks.
    Returns:
        0, or the exit status of the rank that failed.
    Raises:
        RunError: the nodes did not find each other.
    """
    devices = cfg.trainer.devices or (device_count() if cfg.trainer.accelerator is not Accelerator.cpu else 0) or 1
    several = cfg.trainer.num_nodes > 1
    config = LaunchConfig(
        min_nodes=cfg.trainer.num_nodes,
        max_nodes=cfg.trainer.num_nodes,
        nproc_per_node=devices,
        run_id="timix",
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=cfg.launcher.rdzv_endpoint or "localhost:0",
        rdzv_configs={"rank": cfg.launcher.node_rank} if several else {},
        max_restarts=0,
        monitor_interval=0.5,
        signals_to_handle="SIGQUIT",  # the others are ours
    )
    logging.disable(logging.ERROR)  # the ranks print their own errors
    with _signals_passed_on():
        try:
            elastic_launch(config, sys.executable)("-m", "timix_pl.cli.train", *words_of_a_rank(words))
        except ChildFailedError as error:
            status = max(
                failure.exitcode for failure in error.failures.values()
            )  # negative: ended by the agent because another rank failed
            return status if status >= 0 else 128 - status
        except (DistError, RendezvousError) as error:
            raise RunError(f"launcher.rdzv_endpoint={as_typed(cfg.launcher.rdzv_endpoint)}: the nodes did not meet: {error}") from error
    return 0


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
