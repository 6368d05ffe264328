"""1,000 times open and close and 200 pictures do not make the process grow; valgrind finds nothing lost of ours."""

import logging

import pytest

from tests.runtime.native.robustness.bundles import Bundles
from tests.runtime.native.robustness.conftest import HERE, Runner, need

log = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.parametrize(("opens", "pictures"), [(1000, 0), (1, 200)])
def test_resident_memory_does_not_grow(plain: Runner, bundles: Bundles, opens: int, pictures: int) -> None:
    """From the first tenth to the last below 512 KiB, so no open keeps 600 bytes. One arena: with the C library's one
    for each thread the heap takes longer to settle."""
    said = plain("rounds", bundles.prompts, opens, pictures, before=("env", "MALLOC_ARENA_MAX=1"))
    resident = [int(line.split()[2]) for line in said.splitlines()]
    assert len(resident) == 10 and resident[0] > 5_000
    assert resident[-1] - resident[0] < 512, resident
    log.info("%d opens, %d pictures: resident %s KiB", opens, pictures, resident)


@pytest.mark.slow
def test_valgrind(plain: Runner, bundles: Bundles) -> None:
    """Open, generate, cancel, close, three times; any error counts, and anything lost."""
    valgrind = need("valgrind", "valgrind")
    options = (
        "--leak-check=full",
        "--num-callers=40",
        "--error-exitcode=3",
        f"--suppressions={HERE / 'valgrind.supp'}",
    )
    said = plain("rounds", bundles.prompts, 3, 1, before=(valgrind, *options))
    summary = [line.split("== ")[1].strip() for line in said.splitlines() if "lost:" in line or "SUMMARY: " in line]
    assert any(line.startswith("ERROR SUMMARY: 0 errors") for line in summary), said
    log.info("valgrind: %s", "; ".join(summary))
