"""Borders: errors of libraries and of the machine become one line; a fault of the program keeps its traceback."""

from __future__ import annotations

import errno
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import write_bundle
from hart_edge.cli.main import guarded
from hart_edge.data.pictures import read_pictures
from hart_edge.engines.loading import load
from hart_edge.errors import BuildError, HartEdgeError, InputError, border, bordered
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.runtime.pipeline import Pipeline
from tests.bundle.make_bundle import make_bundle
from tests.runtime.words_bundle import make_words_bundle

FOREIGN: list[Exception] = [
    *(OSError(number, "as the system says it") for number in errno.errorcode),
    ValueError("odd\nvalue"),
    RuntimeError("x" * 5000),
    MemoryError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    KeyError("weight"),
    TypeError("not this type"),
    IndexError(7),
    EOFError(),
    type("LibraryError", (Exception,), {})("of a library's own"),
]


class Given:
    """A path that fails when a reader looks at it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __fspath__(self) -> str:
        raise self.error

    def __str__(self) -> str:
        return "given"


class Runner:
    """An engine library that fails while it runs."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, *_: object) -> None:
        raise self.error

    def load(self, graph: str) -> None:
        raise self.error

    def unload(self, graph: str) -> None:
        raise self.error


class Library:
    """A registry whose library fails when it opens a bundle."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, target: object) -> Any:
        raise self.error


def read_checkpoint(error: Exception, _: Path) -> None:
    load_checkpoint(Given(error))  # type: ignore[arg-type]


def read_data(error: Exception, _: Path) -> None:
    read_pictures(Given(error), 8)  # type: ignore[arg-type]


def read_bundle(error: Exception, _: Path) -> None:
    open_bundle(Given(error))  # type: ignore[arg-type]


def write(error: Exception, folder: Path) -> None:
    with write_bundle(folder / "out"):
        raise error


def open_engine(error: Exception, folder: Path) -> None:
    load(make_bundle(folder / "bundle"), registry=Library(error))  # type: ignore[arg-type]


def draw(error: Exception, folder: Path) -> None:
    Pipeline(open_bundle(make_words_bundle(folder / "bundle")), Runner(error)).generate("w1 w2")  # type: ignore[arg-type]


BORDERS = (read_checkpoint, read_data, read_bundle, write, open_engine, draw)


@pytest.mark.long
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: str(getattr(error, "errno", type(error).__name__)))
def test_errors_of_libraries_and_of_the_machine_are_one_line(
    border: Callable[[Exception, Path], None], error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Namespace) -> int:
        border(error, tmp_path)
        return 0

    assert guarded(run, Namespace()) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1 and len(said.err) < 1000
    assert "; " in said.err  # a remedy


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    "error", [AssertionError("no"), NameError("x"), KeyboardInterrupt(), DeprecationWarning("old")]
)
def test_a_border_lets_faults_of_the_program_through(
    border: Callable[[BaseException, Path], None], error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)) as caught:
        border(error, tmp_path)
    assert caught.value is error


@pytest.mark.parametrize("error", [TypeError("of ours"), KeyError("of ours"), RuntimeError("of ours")])
def test_outside_of_borders_a_fault_shows_its_traceback(error: Exception) -> None:
    def run(_: Namespace) -> int:
        raise error

    with pytest.raises(type(error)) as caught:
        guarded(run, Namespace())
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space", "x"), "a: the disk is full ([Errno 28] No space: 'x'); elsewhere"),
        (OSError(24, "Too many"), "a: too many open files ([Errno 24] Too many); raise the limit (ulimit -n)"),
        (OSError(13, "Denied", "x"), "a: fails ([Errno 13] Denied: 'x'); try again"),
        (MemoryError(), "a: not enough memory (MemoryError); close other programs, or use a machine with more"),
        (ValueError("two\nlines"), "a: fails (ValueError: two lines); try again"),
        (OSError(), "a: fails (OSError); try again"),
    ],
)
def test_messages(error: Exception, message: str) -> None:
    with pytest.raises(BuildError) as caught, border(BuildError, "a", "fails", "try again", room="elsewhere"):
        raise error
    assert str(caught.value) == message and caught.value.__cause__ is error


def test_our_own_errors_pass_a_border() -> None:
    with pytest.raises(InputError, match=r"^mine$"), border(BuildError, "a", "fails", "try again"):
        raise InputError("mine")


def test_generators_are_guarded_while_they_run() -> None:
    @bordered(HartEdgeError, "fails", "try again")
    def count(most: int) -> Iterator[int]:
        yield from range(most)
        raise OSError(5, "odd")

    numbers = count(2)
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises(HartEdgeError, match=r"^2: the disk fails \(\[Errno 5\] odd\)"):
        next(numbers)


def test_running_out_of_memory_outside_of_borders(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Namespace) -> int:
        raise MemoryError("Unable to allocate 8 GiB")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guarded(run, Namespace()) == 1
    assert capsys.readouterr().err == "error: MemoryError: Unable to allocate 8 GiB\n"
