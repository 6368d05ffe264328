"""The command line: `hart-edge COMMAND ...`, the same as `python -m hart_edge COMMAND ...`.

In: arguments. Out: what the command's file prints, and an exit status: 0 done, 1 an error or a failed check (one
message on standard error), 2 arguments that make no sense, 130 interrupted, 141 nobody reads the output any more.
This file assembles the commands, calls the one that was asked for, and turns what it raises into its exit status.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from hart_edge import __version__
from hart_edge.cli import bench, build, calibrate, data, doctor, engines, generate, golden, info, plan, train
from hart_edge.cli import eval as evaluate
from hart_edge.cli.command import Run
from hart_edge.errors import HartEdgeError

COMMANDS = (generate, info, plan, bench, golden, build, calibrate, engines, doctor, data, train, evaluate)
PROGRAM, BUILD_DOOR = "hart-edge", "python -m export.build"
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal's number, as shells have it


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    p = argparse.ArgumentParser(prog=PROGRAM, description="HART image generation at the edge.", allow_abbrev=False)
    p.add_argument("--version", action="version", version=f"hart-edge {__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return p


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m export.build`: the command build alone, under the name it was called by."""
    commands = argparse.ArgumentParser().add_subparsers()
    build.add(commands)
    p = commands.choices["build"]
    p.prog = BUILD_DOOR
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Arguments that make no sense end in SystemExit(2), as argparse has it."""
    return _call(parser(), PROGRAM, arguments)


def build_main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m export.build`; returns the exit status as main() does."""
    return _call(build_parser(), BUILD_DOOR, arguments)


def _call(p: argparse.ArgumentParser, name: str, arguments: Sequence[str] | None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt that the terminal's encoding lacks is no error
    given = sys.argv[1:] if arguments is None else arguments
    a = p.parse_args(given)
    a.typed = [*name.split(), *given]
    return guarded(a.run, a)


def guarded(run: Run, a: argparse.Namespace) -> int:
    """Run a command and return its exit status, whatever it raises. An interruption may say what came of the work."""
    try:
        status = run(a)
        sys.stdout.flush()  # here, where a closed pipe can still be told from an error
        return status
    except BrokenPipeError:  # `hart-edge info BUNDLE | head -1`
        _drop_output()
        return BROKEN_PIPE
    except (HartEdgeError, OSError) as error:  # OSError: the disk is full, a folder may not be entered, ...
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {interrupt}" if interrupt.args else "interrupted", file=sys.stderr)
        return INTERRUPTED


def _drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter flushes at its end, and must not find the pipe closed."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
