"""End child processes together with their parent."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Make this ``multiprocessing`` process end when its parent ends, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
