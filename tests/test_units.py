"""Sizes as they are typed and printed: one meaning in every command."""

from __future__ import annotations

import pytest

from hart_edge.errors import InputError
from hart_edge.units import binary_size, byte_count, size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GB", 2 * 10**9),
        ("2G", 2 * 10**9),
        ("2GiB", 2**31),
        ("2gib", 2**31),
        ("2Gi", 2**31),
        ("1.5 GiB", 3 * 2**29),
        ("512MiB", 2**29),
        ("512mb", 512 * 10**6),
        ("64K", 64_000),
        ("64KiB", 2**16),
        ("1T", 10**12),
        ("1000B", 1000),
        ("0", 0),
        ("9007199254740993B", 2**53 + 1),  # not exact as a float
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "big", "8 gigs", "-1GiB", "GB", "1.GB", "1iB", "1e9", "0x10", "\u0663GB"])
def test_malformed_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^expected a size such as 2GiB, 512MiB or 4GB, found "):
        byte_count(text)


@pytest.mark.parametrize("text", ["8", "1000", " 8 "])
def test_a_number_without_a_unit_is_no_size(text: str) -> None:
    with pytest.raises(
        InputError, match=r"^expected a size with its unit, such as (8GiB, or 8|1000MiB, or 1000)B for bytes, found"
    ):
        byte_count(text)


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (12_400, "12.4 kB"), (19_593_855, "19.6 MB"), (3.1e9, "3.1 GB")]
)
def test_sizes_are_printed(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(3 * 2**29, "1.50 GiB"), (700 * 2**20, "700 MiB"), (3 * 2**19, "1.50 MiB"), (2**19, "512 KiB"), (8, "8 B")],
)
def test_sizes_of_memory_are_printed(count: int, shown: str) -> None:
    assert binary_size(count) == shown
