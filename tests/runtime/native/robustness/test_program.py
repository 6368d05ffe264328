"""The whole public API and its use by threads, plain in the default suite, under sanitizers in `make native-check`."""

import logging
import re

import pytest

from tests.bundle.corrupt_bundles import CORRUPTIONS
from tests.runtime.native.robustness.bundles import Bundles
from tests.runtime.native.robustness.conftest import Runner

log = logging.getLogger(__name__)


def use_everything(runner: Runner, bundles: Bundles) -> None:
    said = runner("program", bundles.prompts, bundles.contexts, bundles.corrupt)
    assert said == f"{len(CORRUPTIONS)} corrupt bundles refused\n"
    log.info("program: %s", said.strip())


def use_threads(runner: Runner, bundles: Bundles, rounds: int) -> None:
    said = runner("threads", bundles.prompts, rounds)
    found = re.fullmatch(r"(\d+) drawn, (\d+) busy, (\d+) cancelled\n", said)
    assert found and sum(map(int, found.groups())) == 2 * 20 * rounds and int(found[1]) > 0
    log.info("threads: %s", said.strip())


def test_every_function_and_every_misuse(plain: Runner, bundles: Bundles) -> None:
    assert len(CORRUPTIONS) >= 40
    use_everything(plain, bundles)


def test_threads(plain: Runner, bundles: Bundles) -> None:
    use_threads(plain, bundles, rounds=3)


@pytest.mark.slow
def test_under_the_address_sanitizer(address: Runner, bundles: Bundles) -> None:
    use_everything(address, bundles)
    use_threads(address, bundles, rounds=20)


@pytest.mark.slow
def test_under_the_thread_sanitizer(thread: Runner, bundles: Bundles) -> None:
    use_everything(thread, bundles)
    use_threads(thread, bundles, rounds=20)
