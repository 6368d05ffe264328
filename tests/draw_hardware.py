"""The tables of what has run where: docs/hardware.json as Markdown, between two marks of each page that shows them.

    python -m tests.draw_hardware

writes them. tests/test_hardware.py holds page and file together.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "hardware.json"
PAGES = ("README.md", "docs/engines.md", "docs/jetson.md", "docs/desktop.md")
OF_PAGE = {"docs/jetson.md": {"tensorrt"}, "docs/desktop.md": {"tensorrt", "tensorrt-rtx"}}  # else all targets
BEGIN, END = "<!-- made by python -m tests.draw_hardware -->", "<!-- end -->"
BETWEEN = re.compile(rf"{re.escape(BEGIN)}\n.*?{re.escape(END)}\n", re.DOTALL)
HEAD = ("target", "on", "built", "has run", "figures")


def rows() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(SOURCE.read_bytes())
    return found


def table(page: str) -> str:
    """The table of a page, with its marks. Links are written from the repository's root, and made the page's own."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows():
        if row["target"] in OF_PAGE.get(page, {row["target"]}):
            cells = [f"`{row['target']}`", row["on"], row["built"], row["ran"], row["figures"]]
            lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines)
    if page.startswith("docs/"):
        text = text.replace("](docs/", "](")
    return f"{BEGIN}\n{text}\n{END}\n"


def draw(page: str) -> str:
    """The text of a page with its table as the source has it."""
    made = table(page)
    return BETWEEN.sub(lambda _: made, (ROOT / page).read_text("utf-8"))


def main() -> None:
    for page in PAGES:
        (ROOT / page).write_text(draw(page), "utf-8")


if __name__ == "__main__":
    main()
