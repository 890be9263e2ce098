"""Memory that is given back."""

import ctypes
import subprocess
import sys

import pytest

GIVEN_BACK = """
import ctypes, os
from timix_pl.core.memory import return_free_memory

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size, freed = 100_000, []  # under glibc's first threshold for blocks of their own
for _ in range(2_000):
    freed.append(libc.malloc(size))
    libc.malloc(64)  # holds the heap's top, so that free() alone gives nothing back
    ctypes.memset(freed[-1], 1, size)
for block in freed:
    libc.free(block)
before = resident_bytes()
return_free_memory()
print((before - resident_bytes()) / (size * len(freed)))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_lies_between_blocks_in_use_is_given_back():
    """In a process of its own: the heap of this one has gaps from other tests."""
    share = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True).stdout
    assert float(share) > 0.8
