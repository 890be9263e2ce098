"""Memory that is free but not given back."""

import ctypes


def return_free_memory() -> None:
    """Give the heap's free memory back to the system, where the C library can (glibc's ``malloc_trim``).

    glibc keeps freed blocks of up to 32 MiB. Where sizes of tensors differ from step to step, new ones do not fit into the gaps of the old,
    and the process grows for hundreds of steps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
