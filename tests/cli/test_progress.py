"""Lines that change on a terminal, and what is printed instead of them elsewhere."""

from __future__ import annotations

import io
import json

import pytest

from hart_edge.cli.progress import BuildLines, EngineLine, PictureLine, StatusLine
from hart_edge.engines.base import BuildProgress
from hart_edge.engines.bundle_build import EngineDone
from hart_edge.export.options import StepDone
from tests.cli.command_line import Terminal

CLEAR = "\r\033[K"
OPTIMIZING = BuildProgress("decoder", "optimizing", 3, 7, 12.3)
STARTING = BuildProgress("decoder", "starting", 0, 1, 0.4)


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")


def test_a_status_line_is_cleared_at_the_end() -> None:
    screen = Terminal()
    with StatusLine(screen) as line:
        line.say("loading")
        line.say("x" * 100)
    assert screen.getvalue() == f"{CLEAR}loading{CLEAR}{'x' * 59}{CLEAR}"


def test_a_status_line_that_comes_too_soon_is_left_out() -> None:
    screen = Terminal()
    with StatusLine(screen) as line:
        line.say("first", every=60)
        line.say("second", every=60)
        line.say("third")
    assert screen.getvalue() == f"{CLEAR}first{CLEAR}third{CLEAR}"


@pytest.mark.parametrize("kind", [StatusLine, PictureLine])
def test_nothing_is_shown_without_a_terminal(kind: type[StatusLine]) -> None:
    stream = io.StringIO()
    with kind(stream) as line:
        line.say("loading")
    assert stream.getvalue() == ""


def test_steps_of_a_build_on_a_terminal() -> None:
    screen = Terminal()
    with BuildLines(as_json=False, stream=screen) as show:
        for event in ("tracing decoder", StepDone("tracing decoder", 1.26, 2_500_000), OPTIMIZING, "writing x"):
            show(event)
    assert screen.getvalue() == (
        f"  tracing decoder ...{CLEAR}     1.3 s       2.5 MB  tracing decoder\n"
        f"{CLEAR}    12.3 s  decoder: optimizing 3 of 7  writing x ...\n"  # the step that was not finished
    )


def test_steps_of_a_build_without_a_terminal() -> None:
    """A line a step with its time; its name comes when it begins, so that a log shows where a build is."""
    log, told = io.StringIO(), Terminal()
    with BuildLines(as_json=False, stream=log) as show:
        show("tracing decoder")
        assert log.getvalue() == "  tracing decoder ..."
        for event in (
            OPTIMIZING,
            StepDone("tracing decoder", 1.23456, 2_500_000),
            StepDone("KL 0.1", 0.0, None),
            "next",
        ):
            show(event)
        show(StepDone("note", 0.0, None))
        show(StepDone("next", 2.0, None))
    expected = "  tracing decoder ... 1.2 s, 2.5 MB\n  KL 0.1\n  next ...\n  note\n  next ... 2.0 s\n"
    assert log.getvalue() == expected
    with BuildLines(as_json=True, stream=told) as show:
        for event in ("tracing decoder", OPTIMIZING, StepDone("tracing decoder", 1.23456, None)):
            show(event)
    assert json.loads(told.getvalue()) == {"step": "tracing decoder", "seconds": 1.235, "bytes": None}


def test_engines_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Terminal()
    with EngineLine(as_json=False, stream=screen) as line:
        line.progress(STARTING)
        line.progress(OPTIMIZING)
        line.done(EngineDone("decoder", 12.34, 3_200_000, again=True))
    assert screen.getvalue() == (f"{CLEAR}  decoder: starting (0 s){CLEAR}  decoder: optimizing 3 of 7 (12 s){CLEAR}")
    assert capsys.readouterr().out == "    12.3 s     3.2 MB  decoder, kept from before\n"


def test_progress_of_engines_is_printed_now_and_then_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with EngineLine(as_json=True, stream=stream) as line:
        line.progress(STARTING)
        line.progress(OPTIMIZING)  # the same component, a moment later
        line.done(EngineDone("decoder", 12.34, 3_200_000, again=False))
    assert stream.getvalue() == "decoder: starting (0 s)\n"
    assert json.loads(capsys.readouterr().out)["component"] == "decoder"
