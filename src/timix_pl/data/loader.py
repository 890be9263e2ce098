"""Loader processes whose errors arrive as they were raised."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from timix_pl.core.errors import TimixError
from timix_pl.core.processes import end_with_parent
from timix_pl.data.remote.transport import used_here

_PRELOADED = ["torch", "open_clip"]
"""What takes long to import; workers of a fork server find it imported."""

_JOB_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Loader(DataLoader):
    """A ``DataLoader`` that raises a worker's ``TimixError`` in the main process, message and all; torch would bury it in a stack trace.

    Once this process has read remote shards, workers come from a fork server: forks of the process itself could not read any.

    Args:
        dataset: its items are used as they are.
        options: of ``DataLoader``.
    """

    def __init__(self, dataset: Dataset, **options: Any):
        wrapped = _ErrorsInStream(dataset) if isinstance(dataset, IterableDataset) else _ErrorsAsItems(dataset)
        super().__init__(wrapped, batch_size=None, collate_fn=_unchanged, worker_init_fn=_start_worker, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.num_workers and used_here():
            _start_fork_server()
            self.multiprocessing_context = "forkserver"
        items = super().__iter__()
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)  # what is registered last runs first: before torch waits for each worker
        for item in items:
            if isinstance(item, TimixError):
                raise item
            yield item


class _ErrorsAsItems(Dataset):
    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except TimixError as error:
            return error


class _ErrorsInStream(IterableDataset):
    def __init__(self, dataset: IterableDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except TimixError as error:
            yield error


def _start_fork_server() -> None:
    """Start it, unless it runs, and Python's tracker of resources with it, deaf to what a job is sent: workers end when their server does.

    Blocked signals stay blocked in a process that is started; to ignore them there, once it runs, would come a moment too late.
    """
    multiprocessing.set_forkserver_preload(_PRELOADED)
    for process in (resource_tracker, forkserver):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_SIGNALS)
        try:
            process.ensure_running()  # that of the tracker unblocks signals, hence one after the other
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker_id: int) -> None:
    """A job's signals and Ctrl-C reach the loader processes too, while the training process still needs their batches to end well."""
    for number in _JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _end_workers() -> None:
    """At exit: the libraries would wait for those that hang, and ask them with SIGTERM, which they ignore."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for workers that were killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _unchanged(item: Any) -> Any:
    return item
