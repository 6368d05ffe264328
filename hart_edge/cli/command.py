"""How every command begins: a name, a line on what it does, and what calls it.

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
    """The parser of a command. run: what main() calls; it finds `refuse` beside its arguments, which ends with 2."""
    p = new_parser(commands, name, summary)
    p.set_defaults(run=run, refuse=p.error)
    return p


def new_parser(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    """A parser without abbreviations, since a later option could change their meaning."""
    return commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Around imports: a package that is missing becomes a HartEdgeError that names it and the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hart_edge"):
            raise
        raise HartEdgeError(
            f"{what} needs {error.name}, which is not installed; pip install 'hart-edge[{extra}]'"
        ) from error
