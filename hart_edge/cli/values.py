"""Values of options as argparse reads them. What cannot be meant ends with the command's usage and exit status 2."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from hart_edge.engines.loading import MOST_THREADS
from hart_edge.errors import InputError
from hart_edge.units import byte_count


def bytes_of(text: str) -> int:
    """A number of bytes, in any way that sizes are written."""
    try:
        return byte_count(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The reader of an integer from low to high, None for any from low on."""
    expected = f"{low} or more" if high is None else f"an integer from {low} to {high}"

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text[:30]) <= (high or 10**30):
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
        return int(text)

    return read


thread_number = whole(1, MOST_THREADS)
