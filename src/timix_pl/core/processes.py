"""Processes that must not outlive the one that started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """From now on, this process of ``multiprocessing`` ends when its parent does, even where that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
