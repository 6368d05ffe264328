"""What every command has: a name, a line on what it does, and a function to call.

A command's file has `add(commands)`, which declares its arguments, and `run(arguments)`, which returns the exit status.
Importing the file is cheap: what only a workstation has is imported inside `run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from hart_edge.errors import HartEdgeError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # the only name that argparse has for it
Run = Callable[[argparse.Namespace], int]


def new_command(commands: Commands, name: str, summary: str, run: Run) -> argparse.ArgumentParser:
    """Add a command; main() calls `run` with its arguments.

    Beside them `run` finds `refuse`, which ends the program with a message and exit status 2. main() does the same with
    an InputError, and with options that the command does not have.
    """
    p = new_parser(commands, name, summary)
    p.set_defaults(run=run)
    return p


def new_parser(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a parser that takes no abbreviated options, since a later option could change what they mean."""
    p = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    p.set_defaults(refuse=p.error)
    return p


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Turn a package that an import does not find into a HartEdgeError that names it, and the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hart_edge"):
            raise
        raise HartEdgeError(
            f"{what} needs {error.name}, which is not installed; pip install 'hart-edge[{extra}]'"
        ) from error
