"""Give back to the system what glibc's malloc keeps of freed memory. With other C libraries these calls do nothing.

A freed block stays with the process while a smaller one behind it is in use. That can be a third of the memory that
loading graphs takes, and in a build the keys and values of every scale that is done.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

Open = Callable[[None], Any]  # of the C library that this process has loaded: ctypes.CDLL, unless a test has another

# Bytes. A block from MAPPED_FROM on has pages of its own: with 1 MiB, new pages for small products cost half their
# speed; with 16 MiB, what lies below still scatters. KEPT may stay free at the end of the heap.
MAPPED_FROM, KEPT = 2**22, 2**26
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def return_freed_memory(library: Open = ctypes.CDLL) -> None:
    """Give back what has been freed so far; takes milliseconds."""
    trim = _function(library, "malloc_trim")
    if trim is not None:
        trim(0)


def map_large_blocks(library: Open = ctypes.CDLL) -> None:
    """From now on, blocks of 4 MiB and more go back when they are freed. For programs: it holds for the whole process.

    By default malloc keeps blocks of up to 32 MiB once it has seen one of that size freed.
    """
    mallopt = _function(library, "mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def _function(library: Open, name: str) -> Any:
    """A function of the C library; None where it has none of that name, as on macOS, Windows and musl."""
    try:
        return getattr(library(None), name, None)
    except (OSError, TypeError):  # TypeError: Windows
        return None
