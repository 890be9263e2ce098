"""A data loader whose workers pass on their errors."""

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
"""Modules that are slow to import. The fork server imports them once, for all its workers."""

_JOB_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Loader(DataLoader):
    """A ``DataLoader`` that raises a worker's ``TimixError`` in the main process. torch would bury its message in a stack trace.

    Forks of a process that has read remote shards cannot read any. The workers of such a process come from a fork server.

    Args:
        dataset: each item is a batch, and is not collated.
        options: of ``DataLoader``.
    """

    def __init__(self, dataset: Dataset, **options: Any):
        wrapped = _ErrorsInStream(dataset) if isinstance(dataset, IterableDataset) else _ErrorsAsItems(dataset)
        super().__init__(wrapped, batch_size=None, collate_fn=_unchanged, worker_init_fn=_start_worker, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # No variable holds the iterator, because the traceback of an error would keep it alive. The workers must end before the garbage
        # collector closes their queues: torch could not tell them to end, and would wait 10 s for each, at any later moment.
        for item in self._items():
            if isinstance(item, TimixError):
                raise item
            yield item

    def _items(self) -> Iterator[Any]:
        if self.num_workers and used_here():
            _start_fork_server()
            self.multiprocessing_context = "forkserver"
        items = super().__iter__()
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)  # the last one registered runs first: before torch waits for each worker
        return items


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
    """Start the fork server and Python's resource tracker, unless they run, with the signals of a job blocked.

    Workers end when their server does, so it must outlive these signals. A new process inherits the blocking. If it ignored the signals
    itself, a signal could come before that.
    """
    multiprocessing.set_forkserver_preload(_PRELOADED)
    for process in (resource_tracker, forkserver):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_SIGNALS)
        try:
            process.ensure_running()  # the tracker's unblocks the signals, so they are blocked for each
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker_id: int) -> None:
    """Ignore the signals of a job and Ctrl-C: the training process still needs batches, to end in good order."""
    for number in _JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _end_workers() -> None:
    """Kill the workers at exit. The libraries would send SIGTERM, which workers ignore, and then wait for those that hang."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for workers that were killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _unchanged(item: Any) -> Any:
    return item
