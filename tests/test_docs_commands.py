"""The commands of the documents parse; those of docs/jetson.md and docs/desktop.md marked `runs here` are run.

CHECKPOINT in the pages is replaced by a small checkpoint; all else runs as written, in order, in an empty folder.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hart_edge.cli.main import build_parser, main, parser
from tests.conftest import GOLDEN, BuildCommand

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDENTED = re.compile(r"^    ((?:hart-edge|python -m export\.build) .*)$", re.MULTILINE)
PAGES = ("jetson.md", "desktop.md")
BLOCK = re.compile(r"(<!-- runs here -->\n)?```sh\n(.*?)```", re.DOTALL)
FOREIGN = {"rsync", "sudo", "pip", "python3", "python3.11", "make"}  # commands of other programs


def commands(page: str, *, marked: bool) -> Iterator[list[str]]:
    """The command lines of a page's blocks, split as a shell does."""
    for mark, block in BLOCK.findall((DOCS / page).read_text("utf-8")):
        if bool(mark) is marked:
            yield from (shlex.split(line) for line in block.splitlines() if line.strip())


def ours(words: list[str]) -> bool:
    return words[0] == "hart-edge" or words[:3] == ["python", "-m", "export.build"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_marked_commands_run(
    page: str,
    build_command: BuildCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(commands(page, marked=True))
    assert len(found) >= 3 and all(ours(words) for words in found)
    for words in found:
        given = [str(GOLDEN / "plain") if word == "CHECKPOINT" else word for word in words]
        run = main if words[0] == "hart-edge" else build_command
        status = run(given[1:] if words[0] == "hart-edge" else given[3:])
        captured = capsys.readouterr()
        assert status == 0, (shlex.join(words), captured.err)


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_all_other_commands_parse(page: str) -> None:
    for words in commands(page, marked=False):
        if words[0] == "hart-edge":
            assert parser().parse_args(words[1:]).command == words[1]
        elif ours(words):
            assert build_parser().parse_args(words[3:]).out
        else:
            assert words[0] in FOREIGN, words
            if words[0] == "make":
                done = subprocess.run(["make", "-n", *words[1:]], cwd=DOCS.parent, capture_output=True, text=True)
                assert done.returncode == 0 and "--gpu-check" in done.stdout, done.stderr


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
def test_indented_commands_parse(page: str) -> None:
    """README.md and docs/cli.md indent their commands; a line with [options] or ... is a pattern, not a command."""
    for line in INDENTED.findall((ROOT / page).read_text("utf-8").replace("\\\n", "")):
        words = shlex.split(line, comments=True)
        if any(mark in line.split(" #")[0] for mark in ("...", "[", "|")):
            continue
        if words[0] == "hart-edge":
            parser().parse_args(words[1:])
        else:
            build_parser().parse_args(words[3:])
