"""Hidden staging folders: removed by the process that made them, or by a later one if that process was killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hart_edge.bundle.writer import unfinished_folder, write_bundle
from hart_edge.errors import BuildError
from hart_edge.staging import (
    OWNER_FILE,
    REPLACED,
    WRITING,
    claimed,
    hidden_file,
    hidden_name,
    staged_file,
    staged_folder,
    sweep,
    sweep_files,
)

ROOT = Path(__file__).parents[1]
# The tests may have been started with signals ignored, by nohup or in the background.
WRITER = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from hart_edge.bundle.writer import write_bundle
from hart_edge.cli.main import guarded
from hart_edge.cli.signals import ending_signals

def run(a):
    with write_bundle(Path(sys.argv[1]), resume=len(sys.argv) > 2) as writer:
        writer.write("graphs/part.onnx", b"half")
        print("writing", flush=True)
        time.sleep(120)

with ending_signals():
    sys.exit(guarded(run, None))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that writes a bundle and never ends by itself."""
    begun: list[subprocess.Popen[str]] = []

    def call(out: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(out), *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        begun.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        assert begun[-1].stdout is not None and begun[-1].stdout.readline() == "writing\n"
        return begun[-1]

    yield call
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing(start: Start, tmp_path: Path, number: signal.Signals, status: int) -> None:
    process = start(tmp_path / "bundle")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    by = "" if number == signal.SIGINT else f" by {number.name}"
    assert (process.returncode, err) == (status, f"interrupted{by}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_folders_of_killed_processes_are_removed_and_those_of_running_ones_are_not(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "bundle"
    dead = start(out)
    (left,) = tmp_path.iterdir()
    owner = json.loads((left / OWNER_FILE).read_text())
    assert owner["pid"] == dead.pid and owner.keys() == {"pid", "started", "boot"}
    living = start(out)
    (lives,) = set(tmp_path.iterdir()) - {left}  # the second process has left the folder of the first alone
    dead.kill()
    dead.wait()
    with caplog.at_level(logging.WARNING), staged_folder(out):
        assert not left.exists() and lives.is_dir()
    assert caplog.messages == [f"{left}: removed; a process that was killed had left it behind"]
    living.send_signal(signal.SIGSTOP)  # stopped, but alive
    with staged_folder(out):
        assert lives.is_dir()


def test_a_folder_of_an_earlier_boot_is_removed(tmp_path: Path) -> None:
    left = tmp_path / hidden_name(tmp_path, "bundle", ".building-")
    left = left.with_name(left.name + "abc")
    left.mkdir()
    (left / OWNER_FILE).write_text(json.dumps({"pid": os.getpid(), "started": None, "boot": "another"}))
    sweep(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_folders_without_an_owner_and_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in (".bundle.building-abc", ".bundle.building-abc.old", ".bundle2.building-x", "bundle.building-x"):
        (tmp_path / name).mkdir()
    before = set(tmp_path.iterdir())
    (tmp_path / ".bundle.building-abc" / OWNER_FILE).write_text("{half")
    with staged_folder(tmp_path / "bundle"):
        pass
    assert set(tmp_path.iterdir()) == before


def test_a_bundle_that_was_moved_away_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process was killed between the two renames that replace a bundle."""
    out = tmp_path / "bundle"
    left = tmp_path / f"{hidden_name(tmp_path, 'bundle', REPLACED)}abc"
    (left / "earlier").mkdir(parents=True)
    (left / "earlier" / "manifest.json").write_text("{}")
    (left / OWNER_FILE).write_text(json.dumps({"pid": 2**22 + 1, "started": 1, "boot": "another"}))
    sweep(out)
    assert (out / "manifest.json").read_text() == "{}" and list(tmp_path.iterdir()) == [out]
    assert caplog.messages[0] == f"{out}: was put back; a process that was killed had moved it away"


@pytest.mark.long
def test_an_unfinished_folder_has_one_writer_at_a_time(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = start(out, "resume")
    message = r"\.bundle\.engines: another process writes to it; wait until it has ended, or choose another --out"
    with pytest.raises(BuildError, match=message), write_bundle(out, resume=True):
        pass
    first.kill()
    first.wait()
    with pytest.raises(BuildError, match="stops here"), write_bundle(out, resume=True) as writer:
        assert (writer.folder / "graphs/part.onnx").read_bytes() == b"half"  # it continues the work of the first
        raise BuildError("stops here")
    assert not (unfinished_folder(out) / OWNER_FILE).exists()


def test_a_claim_ends_with_its_with_block(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path):
            assert (tmp_path / OWNER_FILE).is_file()
        assert not (tmp_path / OWNER_FILE).exists()


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "日" * 85, os.fsdecode(b"\xff" * 255), "short"])
def test_hidden_names_are_ones_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    hidden = hidden_name(tmp_path, name, ".building-")
    assert len(os.fsencode(hidden)) + 8 <= 255 and hidden.startswith(f".{name[:20]}")
    with staged_folder(tmp_path / name) as folder:
        assert folder.name.startswith(hidden)
    other = hidden_name(tmp_path, name[:-1] + "x", ".building-")
    assert other != hidden  # long names that begin alike have different hidden names


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock ends with its process, so a file that no one has locked was left by a dead one."""
    out, other = tmp_path / "a.png", tmp_path / "b.png"
    dead = tmp_path / f"{hidden_name(tmp_path, 'a.png', WRITING)}01234567"
    kept = {tmp_path / f"{hidden_name(tmp_path, 'c.png', WRITING)}01234567", tmp_path / f".a.png{WRITING}012345678"}
    for file in (dead, *kept):
        file.write_bytes(b"half")
    os.mkfifo(tmp_path / f".b.png{WRITING}01234567")
    (tmp_path / f".b.png{WRITING}76543210").symlink_to(dead)
    with hidden_file(out) as living:
        sweep_files([out, other])
        assert Path(living.name).exists() and not dead.exists() and all(file.exists() for file in kept)
    assert caplog.messages[0] == f"{dead}: removed; a process that was killed had left it behind"
    assert not Path(living.name).exists()


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_text("before")
    with pytest.raises(FileExistsError), staged_file(out) as stream:
        stream.write(b"half")
        raise FileExistsError  # whatever the block raises passes
    assert out.read_text() == "before" and os.listdir(tmp_path) == ["a.png"]
    with staged_file(out) as stream, staged_file(out) as second:
        stream.write(b"first")
        second.write(b"second")
    assert out.read_text() == "first" and os.listdir(tmp_path) == ["a.png"]
