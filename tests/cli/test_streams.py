"""Standard streams that are closed, full or abandoned by their reader, for every command and both entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundle.make_bundle import make_bundle
from tests.cli.command_line import ROOT

CLOSED, FULL = "it is closed", "[Errno 28] No space left on device"
COMMANDS = [
    ("-m", "hart_edge", "info", "BUNDLE"),
    ("-m", "hart_edge", "doctor", "--json"),
    ("-m", "hart_edge", "--help"),
    ("-m", "export.build", "--help"),
]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_closed_output_ends_a_command_quietly(tmp_path: Path, command: tuple[str, ...]) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    line = " ".join([sys.executable, *command]).replace("BUNDLE", str(bundle))
    for redirection, reason in ((">&-", CLOSED), ("> /dev/full", FULL)):
        done = shell(f"{line} {redirection}", tmp_path)
        expected = f"error: standard output cannot be written ({reason}); all else was done\n"
        assert (done.returncode, done.stderr) == (1, expected)
    done = shell(f"{line} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.long
def test_an_error_keeps_its_status_when_standard_error_is_closed(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2> /dev/full", "2> >(true)", ">&- 2>&- <&-"):
        done = shell(f"{sys.executable} -m hart_edge info nowhere {redirection}", tmp_path)
        assert (done.returncode, done.stdout) == (1, ""), redirection


WORK = """
import logging, sys
from argparse import ArgumentParser
from pathlib import Path
from hart_edge.cli.main import guarded
from hart_edge.cli.streams import standard_streams

def run(a):
    logging.basicConfig(stream=sys.stderr)
    for number in range(20_000):
        print(f"step {number}")
        logging.warning("note %d", number)
    Path("done").write_text("whole")  # would land in descriptor 1, were that left closed
    return 0

with standard_streams() as streams:
    status = streams.status(guarded(run, None))
sys.exit(status)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        ("> out 2> err", 0),
        (">&- 2> err", 1),
        ("> out 2>&-", 0),
        (">&- 2>&-", 1),
        ("> /dev/full 2> err", 1),
        ("> out 2> /dev/full", 0),
        ("2> err | head -1 > out; exit ${PIPESTATUS[0]}", 141),
        ("2>&1 > out | head -1 > err; exit ${PIPESTATUS[0]}", 141),
    ],
)
def test_the_work_is_done_although_its_output_is_lost(tmp_path: Path, redirection: str, status: int) -> None:
    (tmp_path / "work.py").write_text(WORK)
    done = shell(f"{sys.executable} work.py {redirection}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert (tmp_path / "done").read_text() == "whole"
    for name, first in (("out", "step 0\n"), ("err", "WARNING:root:note 0\n")):
        if (tmp_path / name).exists() and (tmp_path / name).stat().st_size:
            assert (tmp_path / name).read_text().startswith(first)
            assert "Traceback" not in (tmp_path / name).read_text()


def test_a_slow_reader_loses_nothing(tmp_path: Path) -> None:
    """A non-blocking pipe, which some programs pass to their children, loses nothing."""
    program = (
        "import os, sys\nfrom hart_edge.cli.streams import standard_streams\nos.set_blocking(1, False)\n"
        "with standard_streams() as streams:\n    print('x' * 1_000_000)\n"
        "    status = streams.status(0)\nsys.exit(status)"
    )
    (tmp_path / "work.py").write_text(program)
    done = shell(f"{sys.executable} work.py | (sleep 1; wc -c); exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1000001", "")
