"""Every allocation and engine call fails in turn: the result is an error, no image, no leak, a usable handle."""

import logging
import re

import pytest

from tests.runtime.native.robustness.bundles import Bundles
from tests.runtime.native.robustness.conftest import Runner

log = logging.getLogger(__name__)
TRIED = ("open and generate, that one", "generate alone, that one", "open and generate, that and all behind it",
         "generate alone, that and all behind it")  # fmt: skip


def fail(runner: Runner, kind: str, bundles: Bundles, stride: int) -> list[dict[str, int]]:
    """How many failures ended in each status, for each of TRIED."""
    said = runner("failures", bundles.prompts, runner.failing_engine, kind, stride).splitlines()
    assert [line.split(":")[0] for line in said] == list(TRIED)
    for line in said:
        log.info("%s: %s", kind, line)
    return [{status: int(n) for n, status in re.findall(r"(\d+) ([a-z ]+);", line)} for line in said]


def check_memory(statuses: list[dict[str, int]], stride: int) -> None:
    """The library can do without some (such as a thread); all others end in `out of memory`."""
    assert all(counts.keys() <= {"out of memory", "no error"} for counts in statuses), statuses
    assert all(counts.get("no error", 0) <= 4 for counts in statuses), statuses
    assert sum(statuses[0].values()) * stride > 2000 and sum(statuses[1].values()) > 30, statuses


def check_engine(statuses: list[dict[str, int]]) -> None:
    """One call may fail without an error: RunOptionsUnsetTerminate, when nothing was told to stop. Its number depends
    on how far the loader's thread is, so a few numbers may meet it.
    """
    assert all(counts.keys() <= {"engine failure", "no error"} for counts in statuses), statuses
    assert all(counts.get("no error", 0) <= 3 for counts in statuses), statuses
    assert statuses[0]["engine failure"] > 60 and statuses[1]["engine failure"] > 12, statuses


def test_allocations(plain: Runner, bundles: Bundles) -> None:
    check_memory(fail(plain, "memory", bundles, stride=7), 7)


def test_engine_calls(plain: Runner, bundles: Bundles) -> None:
    check_engine(fail(plain, "engine", bundles, stride=1))


@pytest.mark.slow
def test_under_the_address_sanitizer(address: Runner, bundles: Bundles) -> None:
    check_memory(fail(address, "memory", bundles, stride=1), 1)
    check_engine(fail(address, "engine", bundles, stride=1))
