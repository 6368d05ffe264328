"""Opening and closing 1,000 times, or 200 pictures, do not grow the process; valgrind finds no leak of ours."""

import logging

import pytest

from tests.runtime.native.robustness.bundles import Bundles
from tests.runtime.native.robustness.conftest import HERE, Runner, need

log = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.parametrize(("opens", "pictures"), [(1000, 0), (1, 200)])
def test_resident_memory_does_not_grow(plain: Runner, bundles: Bundles, opens: int, pictures: int) -> None:
    """Growth from the first tenth to the last is below 512 KiB, so no opening leaks 600 bytes. malloc uses one arena:
    with one for each thread, its default, the heap takes longer to settle."""
    said = plain("rounds", bundles.prompts, opens, pictures, before=("env", "MALLOC_ARENA_MAX=1"))
    resident = [int(line.split()[2]) for line in said.splitlines()]
    assert len(resident) == 10 and resident[0] > 5_000
    assert resident[-1] - resident[0] < 512, resident
    log.info("%d opens, %d pictures: resident %s KiB", opens, pictures, resident)


@pytest.mark.slow
def test_valgrind(plain: Runner, bundles: Bundles) -> None:
    """Open, generate, cancel and close, three times; any error and any leak fails."""
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
