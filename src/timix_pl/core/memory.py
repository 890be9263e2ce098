"""Return free memory to the system."""

import ctypes


def return_free_memory() -> None:
    """Return the heap's free memory to the system, if the C library can do so (glibc's ``malloc_trim``).

    glibc keeps freed blocks of up to 32 MiB. If tensor sizes differ from step to step, new tensors do not fit into the gaps of old ones,
    and the process grows for hundreds of steps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
