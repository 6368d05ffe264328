"""Numbers of bytes, as people type them and as they are printed, and durations, for every command and message.

GB, MB and kB are powers of 1000, GiB, MiB and KiB powers of 1024, B is bytes. A number without a unit is refused, since
whoever types 8 means 8 GiB, and 512 is 512 MiB.
"""

from __future__ import annotations

import re
from fractions import Fraction

from hart_edge.errors import InputError

MOST_GIB = 256  # a larger number without a unit is likelier one of MiB
PREFIXES = "kMGT"  # 1000, 1000**2, ...; followed by an i, 1024, 1024**2, ...
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(i)?)?b?", re.ASCII)


def byte_count(text: str) -> int:
    """A number of bytes: 2GiB, 512MiB, 4GB, 4G (the same as 4GB), 1000000B, 0; in any case. Raises InputError."""
    found = SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise InputError(f"expected a size such as 2GiB, 512MiB or 4GB, found {text!r}")
    number, prefix, binary = found.groups()
    if text.strip().isdecimal() and int(number):
        likely = "MiB" if int(number) > MOST_GIB else "GiB"
        raise InputError(
            f"expected a size with its unit, such as {number}{likely}, or {number}B for bytes, found {text!r}"
        )
    power = 0 if prefix is None else PREFIXES.lower().index(prefix) + 1
    return int(Fraction(number) * (1024 if binary else 1000) ** power)


def size(count: float) -> str:
    """A number of bytes for people, in powers of 1000: 950 B, 12.4 kB, 19.6 MB, 3.1 GB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count:.0f} B"


def binary_size(count: float) -> str:
    """A number of bytes in powers of 1024, as the memory of devices is sold: 12 KiB, 9.50 MiB, 700 MiB, 1.50 GiB."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB" if count >= 2**10 else f"{count:.0f} B"
    if count < 10 * 2**20:
        return f"{count / 2**20:.2f} MiB"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds for people: 1 h 05 min, 12 min, 40 s."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
