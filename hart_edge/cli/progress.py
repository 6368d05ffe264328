"""What commands show while they work: every line that changes on a terminal is written here.

In: steps and shares as they happen. Out: one line in place of the last on a terminal, and elsewhere little or nothing;
JSON objects where a command was asked for them.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from hart_edge.engines.base import BuildProgress
from hart_edge.units import size

if TYPE_CHECKING:
    from hart_edge.engines.bundle_build import EngineDone
    from hart_edge.export.options import StepDone

CLEAR = "\r\033[K"  # to the beginning of the line, and nothing right of it
BAR = 24  # characters
QUIET = 10.0  # seconds between lines on the build of an engine where there is no terminal


class StatusLine:
    """One line that says what goes on, gone at the end; nothing where the stream is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self._shown, self._when = False, -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def say(self, line: str, *, every: float = 0.0) -> None:
        """Show a line in place of the last one, unless that was shown less than `every` seconds ago."""
        if self.terminal and time.monotonic() - self._when >= every:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            self.write(f"{CLEAR}{line[:width]}")
            self._when = time.monotonic()

    def clear(self) -> None:
        if self._shown:
            self.write(CLEAR)
            self._shown = False

    def write(self, text: str) -> None:
        print(text, end="", file=self.stream, flush=True)
        self._shown = True


class PictureLine(StatusLine):
    """A bar that fills while the scales of a picture are drawn."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._title, self._begun = "", 0.0

    def start(self, title: str) -> None:
        self._title, self._begun = title, time.perf_counter()
        self.say(f"[{'.' * BAR}]  {title}")

    def step(self, done: int, scales: int) -> None:
        filled = BAR * done // scales
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}]"
        self.say(f"{bar}  {done} of {scales} scales  {time.perf_counter() - self._begun:5.1f} s  {self._title}")


class EngineLine(StatusLine):
    """`hart-edge engines`: where a build is, and a line for each finished engine."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.as_json = as_json
        self._component, self._told = "", -math.inf

    def progress(self, at: BuildProgress) -> None:
        line = f"{phase_of(at)} ({at.seconds:.0f} s)"
        if self.terminal:
            self.say(f"  {line}")
        elif at.component != self._component or time.monotonic() - self._told > QUIET:
            print(line, file=self.stream, flush=True)
            self._told = time.monotonic()
        self._component = at.component

    def done(self, engine: EngineDone) -> None:
        self.clear()
        if self.as_json:
            print(json.dumps(vars(engine)), flush=True)
        else:
            again = ", kept from before" if engine.again else ""
            print(f"  {engine.seconds:6.1f} s  {size(engine.bytes):>9}  {engine.component}{again}", flush=True)


class BuildLines(StatusLine):
    """`hart-edge build` and `calibrate`: a line for each step on standard error, or JSON on standard output.

    A terminal shows how far a step is. Elsewhere its name comes when it begins and its time when it has ended, since
    some take minutes. The line of a step that ends in an error stays, so that one sees which step it was.
    """

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        super().__init__((sys.stdout if as_json else sys.stderr) if stream is None else stream)
        self.as_json, self._label = as_json, ""
        self.terminal = self.terminal and not as_json

    def __call__(self, event: str | StepDone | BuildProgress) -> None:
        if isinstance(event, str):
            if not self.as_json:
                self._label = event
                self.write(f"  {event} ...")
        elif isinstance(event, BuildProgress):
            self.say(f"  {event.seconds:6.1f} s  {phase_of(event)}")
        elif self.as_json:
            line = {"step": event.label, "seconds": round(event.seconds, 3), "bytes": event.size}
            print(json.dumps(line), file=self.stream, flush=True)
        elif self.terminal:
            megabytes = (
                "" if event.size is None else f"{event.size / 1e6:9.1f} MB"
            )  # one unit, since they form a column
            self.write(f"{CLEAR}  {event.seconds:6.1f} s {megabytes:12}  {event.label}\n")
            self._shown = False
        elif event.label == self._label:
            if not self._shown:  # something else was told meanwhile
                self.write(f"  {event.label} ...")
            written = "" if event.size is None else f", {size(event.size)}"
            self.write(f" {event.seconds:.1f} s{written}\n")
            self._shown = False
        else:  # what a user should know, which is no step
            self.clear()
            self.write(f"  {event.label}\n")
            self._shown = False

    def clear(self) -> None:
        """End the line of an unfinished step, if there is one."""
        if self._shown:
            self.write("\n")
            self._shown = False


def phase_of(at: BuildProgress) -> str:
    share = f" {at.done} of {at.total}" if at.total > 1 else ""
    return f"{at.component}: {at.phase}{share}"
