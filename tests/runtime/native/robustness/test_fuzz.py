"""The default suite feeds the corpus to the readers; `make native-check` runs libFuzzer for a minute on each.

A failure shows the finding. Once the fault is fixed, its file is kept in corpus/NAME; `hart_edge_replay_NAME FOLDER`
runs a folder of such files again.
"""

import logging
import re
import shutil
from pathlib import Path

import pytest

from tests.runtime.native.robustness.conftest import FUZZERS, HERE, Runner
from tests.runtime.native.robustness.seeds import seeds

log = logging.getLogger(__name__)
CORPUS = HERE / "corpus"
SECONDS = 60


@pytest.mark.parametrize("name", FUZZERS)
def test_the_corpus(plain: Runner, name: str) -> None:
    files = list((CORPUS / name).iterdir())
    assert len(files) >= 2 and sum(path.stat().st_size for path in files) < 200_000
    assert plain(f"replay_{name}", CORPUS / name) == f"{len(files)} inputs\n"


def test_every_fuzzer_has_seeds() -> None:
    assert {name.split("/")[0] for name in seeds()} == set(FUZZERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZERS)
def test_a_minute_of_fuzzing(fuzzers: Runner, name: str, tmp_path: Path) -> None:
    """It starts from a copy of the corpus, with a dictionary of the words in its files."""
    corpus = Path(shutil.copytree(CORPUS / name, tmp_path / "corpus"))
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=20000", "-seed=1"]
    options += ["-print_final_stats=1", f"-artifact_prefix={tmp_path}/", *write_words(corpus, tmp_path / "words")]
    said = fuzzers(f"fuzz_{name}", *options, corpus, before=("env",))
    found = re.search(r"stat::number_of_executed_units: (\d+)", said)
    assert found and int(found[1]) > 1000, said[-2000:]
    covered = re.findall(r"cov: (\d+)", said)
    log.info("fuzz_%s: %s inputs in %d s, %s edges covered, no finding", name, found[1], SECONDS, covered[-1])


def write_words(corpus: Path, into: Path) -> list[str]:
    """Write the quoted words of the corpus as a dictionary; return libFuzzer's option for it, or none without words."""
    words = {word for path in corpus.iterdir() for word in re.findall(rb'"[\w./-]{1,40}"', path.read_bytes())}
    into.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in sorted(words)))
    return [f"-dict={into}"] if words else []
