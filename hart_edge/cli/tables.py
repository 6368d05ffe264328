"""How the commands lay out what they print: tables, and text that came from outside."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 60  # characters of a prompt that are repeated


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> list[str]:
    """Lines of a table, two spaces between columns; the columns named in `right` are set flush right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, cells, widths, strict=True)
        ]
        return "  ".join(placed).rstrip()

    return [line(head), *map(line, rows)]


def quoted(text: str) -> str:
    """A prompt as one short line: white space collapsed, nothing that a terminal would obey."""
    line = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return f'"{line}"' if len(line) <= LONGEST else f'"{line[: LONGEST - 3]}..."'
