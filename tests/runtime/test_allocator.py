"""Freed memory goes back to the system, which glibc would delay."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hart_edge.runtime.allocator import map_large_blocks, return_freed_memory

ROOT = Path(__file__).parents[2]
# Twelve blocks of 4 MiB, a small one after each, are freed: prints how many MiB of them stay resident.
FREED = """
import ctypes, sys
from pathlib import Path
from hart_edge.runtime.allocator import map_large_blocks, return_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    words = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return next(int(each[1]) / 1024 for each in words if each[0] == "RssAnon:")

def block(size):
    address = libc.malloc(size)
    ctypes.memset(address, 1, size)
    return address

libc.free(block(30 * 2**20))  # from here on malloc takes blocks of this size from its heap
if "map" in sys.argv:
    map_large_blocks()
before = resident()

blocks = [(block(2**22), block(64)) for _ in range(12)]
for large, _ in blocks:
    libc.free(large)
if "return" in sys.argv:
    return_freed_memory()
print(resident() - before)
"""


def left(*arguments: str) -> float:
    command = [sys.executable, "-c", FREED, *arguments]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_goes_back_to_the_system() -> None:
    assert left() > 30  # MiB, without our settings
    assert left("return") < 5
    assert left("map") < 5


def test_systems_without_glibc_are_left_alone() -> None:
    def refused(name: None) -> Any:
        raise TypeError("Windows has no library of that name")

    for library in (lambda name: object(), refused):
        return_freed_memory(library)
        map_large_blocks(library)
