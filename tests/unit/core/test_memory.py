"""Memory that is given back."""

import ctypes
import os
from pathlib import Path

import pytest

from timix_pl.core.memory import return_free_memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_lies_between_blocks_in_use_is_given_back():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    size, kept, freed = 100_000, [], []  # under glibc's first threshold for blocks of their own
    for _ in range(2_000):
        freed.append(libc.malloc(size))
        kept.append(libc.malloc(64))  # holds the heap's top, so that free() alone gives nothing back
        ctypes.memset(freed[-1], 1, size)
    for block in freed:
        libc.free(block)
    before = resident_bytes()
    return_free_memory()
    given_back = before - resident_bytes()
    for block in kept:
        libc.free(block)
    assert given_back > 0.8 * size * len(freed)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
