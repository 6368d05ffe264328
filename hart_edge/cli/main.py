"""The command line: `hart-edge COMMAND ...`, the same as `python -m hart_edge COMMAND ...`.

In: arguments. Out: what the command's file prints, and an exit status: 0 done, 1 an error or a failed check (one
message on standard error), 2 arguments that make no sense, 128 + n ended by signal n (130: Ctrl-C), 141 nobody reads
the output any more. This file assembles the commands, calls the one that was asked for, and turns what it raises into
its exit status; streams.py and signals.py see to it that every command ends alike.
"""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import traceback
from collections.abc import Sequence

from hart_edge import __version__
from hart_edge.cli import (
    batch,
    bench,
    build,
    calibrate,
    data,
    doctor,
    encode,
    engines,
    generate,
    golden,
    import_checkpoint,
    info,
    plan,
    reconstruct,
    serve,
    train,
    upgrade,
)
from hart_edge.cli import eval as evaluate
from hart_edge.cli.command import Run
from hart_edge.cli.signals import ending_signals, signal_behind
from hart_edge.cli.streams import BROKEN_PIPE, standard_streams
from hart_edge.errors import HartEdgeError, InputError, cause

COMMANDS = (
    generate, encode, batch, serve, reconstruct, info, plan, bench, golden, import_checkpoint, build, upgrade,
    calibrate, engines, doctor, data, train, evaluate,
)  # fmt: skip
PROGRAM, BUILD_DOOR = "hart-edge", "python -m export.build"


class Program(argparse.ArgumentParser):
    """The parser of all commands. commands: their names."""

    commands: tuple[str, ...] = ()


def parser() -> Program:
    """The parser of all commands."""
    p = Program(prog=PROGRAM, description="HART image generation at the edge.", allow_abbrev=False)
    p.add_argument("--version", action="version", version=f"hart-edge {__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser)
    for command in COMMANDS:
        command.add(commands)
    p.commands = tuple(commands.choices)
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
    given = sys.argv[1:] if arguments is None else arguments
    with standard_streams() as streams, ending_signals():
        try:
            refuse_unknown_command(p, given)
            a, unknown = p.parse_known_args(given)
            if unknown:  # of the command, whose usage helps; argparse would show that of the program
                a.refuse(f"unrecognized arguments: {' '.join(unknown)}")
        except SystemExit as end:  # --help, --version, arguments that make no sense
            raise SystemExit(streams.status(end.code if isinstance(end.code, int) else 0)) from None
        # A path may be of other bytes than UTF-8; the card of a bundle quotes it, and is UTF-8.
        a.typed = [*name.split(), *(word.encode("utf-8", "backslashreplace").decode() for word in given)]
        try:
            return streams.status(guarded(a.run, a))
        except SystemExit as end:  # what only the command could see makes no sense
            raise SystemExit(streams.status(end.code if isinstance(end.code, int) else 0)) from None


def refuse_unknown_command(p: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """End the program where the first word is no command, with the one that it may have meant."""
    names = p.commands if isinstance(p, Program) else ()
    if names and given and not given[0].startswith("-") and given[0] not in names:
        near = difflib.get_close_matches(given[0], names, 1)
        meant = f"did you mean {near[0]}?" if near else "see --help for what they do"
        p.error(f"expected a command, one of {', '.join(names)}; found {given[0]!r}; {meant}")


def guarded(run: Run, a: argparse.Namespace) -> int:
    """Run a command and return its exit status, whatever it raises. An interruption may say what came of the work.

    What cannot be meant (InputError) ends in SystemExit(2) with the command's usage, as argparse ends what it cannot
    read. What is no error of ours nor the machine's is a fault of the program, and keeps its traceback.
    """
    try:
        status = run(a)
        sys.stdout.flush()  # here, where a closed pipe can still be told from an error
        return status
    except InputError as error:
        if sys.flags.dev_mode:
            traceback.print_exc()
        a.refuse(str(error))
        raise AssertionError("argparse has ended the program") from error
    except BrokenPipeError:  # of a stream that a caller of main() put in place of ours
        return BROKEN_PIPE
    except (HartEdgeError, OSError, MemoryError) as error:  # OSError: a folder may not be entered, ...
        if sys.flags.dev_mode:
            traceback.print_exc()
        print(f"error: {error if isinstance(error, HartEdgeError | OSError) else cause(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        number = signal_behind(interrupt)
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        print(f"interrupted{by}; {interrupt}" if interrupt.args else f"interrupted{by}", file=sys.stderr)
        return 128 + number
