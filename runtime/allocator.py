"""What glibc's malloc keeps of freed memory, given back to the system. Elsewhere these calls do nothing.

Blocks that are freed stay with the process where smaller ones lie behind them: a third of what loading graphs takes at
most, and the keys and values of all scales that a build has passed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAPPED_FROM = 2**20  # bytes of a block that has pages of its own
USUALLY_MAPPED_FROM, USUALLY_KEPT = 2**25, 2**26  # what malloc comes to by itself: of a block, and of what is free
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

_mapping = False  # whether map_large_blocks() has been called


def return_freed_memory() -> None:
    """Give back what has been freed so far; takes milliseconds."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def map_large_blocks() -> None:
    """From now on, blocks of a MiB and more go back when they are freed. For programs: it holds for the whole process.

    By default malloc keeps blocks of up to 32 MiB once it has seen one of that size freed.
    """
    global _mapping
    _mapping = True
    _set(M_MMAP_THRESHOLD, MAPPED_FROM)


@contextmanager
def large_blocks_kept() -> Iterator[None]:
    """Inside, malloc is as it would be without map_large_blocks(): for what is timed.

    New pages for every large block cost matrix products of the 0.7B shape half their speed.
    """
    if not _mapping:
        yield
        return
    _set(M_MMAP_THRESHOLD, USUALLY_MAPPED_FROM)
    _set(M_TRIM_THRESHOLD, USUALLY_KEPT)
    try:
        yield
    finally:
        _set(M_TRIM_THRESHOLD, 2 * MAPPED_FROM)
        map_large_blocks()
        return_freed_memory()


def _set(parameter: int, value: int) -> None:
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(parameter, value)


def _function(name: str) -> Any:
    """A function of the C library; None where it has none of that name, as on macOS, Windows and musl."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # TypeError: Windows
        return None
