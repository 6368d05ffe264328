"""The commands of the documents parse; those of docs/jetson.md and docs/desktop.md marked `runs here` are run.

CHECKPOINT in the pages is replaced by a small checkpoint; all else runs as written, in order, in an empty folder.
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hart_edge
from hart_edge.cli.main import build_parser, main, parser
from tests.conftest import GOLDEN, BuildCommand

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDENTED = re.compile(r"^    ((?:hart-edge|python -m export\.build) .*)$", re.MULTILINE)
PAGES = ("jetson.md", "desktop.md")
BLOCK = re.compile(r"(<!-- runs here -->\n)?```sh\n(.*?)```", re.DOTALL)
FOREIGN = {"rsync", "scp", "ssh", "sudo", "pip", "python3", "python3.11", "make"}  # commands of other programs


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
                assert done.returncode == 0 and done.stdout, done.stderr


def used_and_made(words: list[str]) -> tuple[set[str], set[str]]:
    """The bundles, by their last names, that a command reads, and those that it writes."""
    used, made = set(), set()
    if words[0] == "rsync":
        used = {word for word in words[2:-1] if word.startswith("bundles/")}
    elif words[0] == "hart-edge" and words[1] in ("info", "plan", "engines", "bench"):
        used.add(words[2])
    for option, word in itertools.pairwise(words):
        if option in ("--bundle", "--reference", "--gpu-check", "--against"):
            used.add(word)
        elif option in ("--out", "--mixed") and ours(words) and words[1] != "generate":
            made.add(word)
    return {Path(name).name for name in used}, {Path(name).name for name in made}


@pytest.mark.parametrize("page", PAGES)
def test_every_bundle_is_made_by_an_earlier_command(page: str) -> None:
    """In the page's order, on whichever machine."""
    made: set[str] = set()
    read: set[str] = set()
    for _, block in BLOCK.findall((DOCS / page).read_text("utf-8")):
        for words in (shlex.split(line) for line in block.splitlines() if line.strip()):
            if words[0] == "make":
                continue
            used, written = used_and_made(words)
            assert used <= made, f"{shlex.join(words)}: nothing on the page makes {', '.join(used - made)}"
            made |= written
            read |= used
    assert len(read) >= 3


def test_no_page_installs_from_an_index_that_does_not_have_it() -> None:
    """There is no release: hart-edge is installed from a wheel, a source distribution or a checkout."""
    for name in ("README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))):
        if name == "docs/releases.md":
            continue  # says so
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"pip install (-\S+ )*hart-edge\b(?!\[)", text), name
        block = "\n".join(block for _, block in BLOCK.findall(text))
        assert "pip install 'hart-edge" not in block, name


def test_readme_lists_every_page_and_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    pages = [path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md")]
    assert [page for page in pages if f"({page})" not in text] == []
    table = text[text.index("## The commands") : text.index("## Where things are")]
    assert [each for each in every_command() if not re.search(rf"`(hart-edge )?{each}\b", table)] == []


def test_cli_has_a_section_for_every_command() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert [each for each in every_command() if f"\n## {each}\n" not in text] == []


def every_command() -> list[str]:
    (commands,) = (action.choices for action in parser()._actions if action.choices and action.dest == "command")
    return list(commands)


def test_make_says_beforehand_what_the_demonstration_does() -> None:
    def make(*arguments: str) -> str:
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    begins = make("demo-begins").splitlines()
    assert [line.strip()[:8] for line in begins[1:]] == ["[1 of 3]", "[2 of 3]", "[3 of 3]"]
    assert all(re.search(r"minutes|a second", line) for line in begins[1:])
    steps = make("-n", "demo")
    assert "docs/images/demo.png" in steps and "/activate" in steps and (DOCS / "images" / "demo.png").is_file()
    wheel = make("-n", "wheel")
    assert f'HART_EDGE_BUNDLE="{ROOT}/bundles/hart-emoji-int8"' in wheel
    assert {"demo.png", "demo-sheet.png"} <= set(make("-n", "clean").split())
    assert "serve bundles/hart-emoji-int8 --port 8123" in make("-n", "serve", "PORT=8123")
    assert re.search(r"^echo .*: 1 to 3 minutes on two cores\"\ncmake -S", make("-n", "native"), re.MULTILINE)
    pictures = make("-n", "pictures")
    assert "docs/images/demo.png" in pictures and "docs/images/strip.png" in pictures


def test_one_version_everywhere() -> None:
    places = {
        "pyproject.toml": r'^version = "(.*)"$',
        "CITATION.cff": r"^version: (.*)$",
        "runtime/native/CMakeLists.txt": r"^project\(hart_edge VERSION (\S+)",
        "CHANGELOG.md": r"^## (\S+) - ",
    }
    for name, pattern in places.items():
        found = re.search(pattern, (ROOT / name).read_text("utf-8"), re.MULTILINE)
        assert found is not None and found[1] == hart_edge.__version__, name


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
