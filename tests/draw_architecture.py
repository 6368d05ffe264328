"""Draw docs/images/architecture.svg: the rooms in the order of their directions, and who imports whom.

    python -m tests.draw_architecture

A square on the diagonal is a room; a number below the diagonal says how often the room of its row imports from the room
of its column. Nothing stands above the diagonal, so there is no cycle. The numbers are counted in the source;
tests/test_imports.py fails while the committed drawing shows other numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from tests.import_graph import imports_by_room

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "images" / "architecture.svg"

# Rooms in the order of the directions, and what each has.
ROOMS = {
    "errors": "every error: what was expected, what was found, what to do",
    "units": "sizes in bytes, read and printed",
    "staging": "hidden folders that become what is written, and whose they are",
    "bundle": "manifest, plan, verification, memory, writer, card",
    "runtime": "prompt → ids, the loop, noise, settings, pipeline; C library",
    "engines": "ONNX Runtime, TensorRT, TensorRT-RTX behind one registry",
    "api": "generate() and load()",
    "server": "HTTP: three APIs, a page, a queue, processes that draw",
    "reference": "HART in PyTorch, and the published checkpoint layout",
    "calib": "INT8 and FP16: schemes, ranges, rewriting, selection",
    "export": "traced graphs, plan, parity, the stages of a build",
    "data": "folders of pictures with captions; the emoji set",
    "batch": "files of prompts, here or on Ray",
    "evaluation": "figures of pictures, by a judge of our own",
    "training": "tokenizer, transformer and judge are trained",
    "checks": "golden records, engines on a GPU, speed, arithmetic",
    "cli": "the commands, one file each",
}
CELL, LEFT, TOP, TEXT = 64, 14, 44, 390  # pixels; TEXT: for the text to the right of the last square
STYLE = """
text{font:13px sans-serif;fill:#1f2328}.name{font-weight:bold;text-anchor:middle}.count{text-anchor:middle}
.words{fill:#57606a}.room{fill:#ddf4ff;stroke:#0969da}.cell{fill:#f6f8fa;stroke:#d0d7de}.some{fill:#fff8c5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.words{fill:#8d96a0}.room{fill:#0c2d6b;stroke:#388bfd}
.cell{fill:#161b22;stroke:#30363d}.some{fill:#3b2e00}}
"""


def draw(imports: Mapping[tuple[str, str], int]) -> str:
    """The drawing as SVG. imports: the result of imports_by_room.

    Raises ValueError for a room that ROOMS does not name, and for an import that would stand above the diagonal.
    """
    if unknown := sorted({room for pair in imports for room in pair} - ROOMS.keys()):
        raise ValueError(f"expected the rooms of ROOMS, found {', '.join(unknown)}; say there what they hold")
    names = list(ROOMS)
    if upwards := [f"{room} from {other}" for room, other in imports if names.index(other) > names.index(room)]:
        raise ValueError(f"expected imports from earlier rooms alone, found {', '.join(sorted(upwards))}")
    height = 30
    width, total = LEFT + CELL * len(ROOMS) + TEXT, TOP + height * len(ROOMS) + 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" width="{width}" height="{total}">',
        f"<style>{''.join(STYLE.splitlines())}</style>",
        f'<text x="{LEFT}" y="24" class="words">A row\'s room imports from the columns\' rooms so many times; '
        "none imports from a room below it.</text>",
    ]
    for row, room in enumerate(names):
        y = TOP + row * height
        for column, other in enumerate(names[: row + 1]):
            x = LEFT + column * CELL
            if other == room:
                lines.append(_box(x, y, CELL * 1.32, height, "room"))
                lines.append(f'<text x="{x + CELL * 0.66:.0f}" y="{y + 20}" class="name">{room}</text>')
                words = escape(ROOMS[room])
                lines.append(f'<text x="{x + CELL * 1.32 + 10:.0f}" y="{y + 20}" class="words">{words}</text>')
            else:
                count = imports.get((room, other), 0)
                lines.append(_box(x, y, CELL, height, "cell some" if count else "cell"))
                if count:
                    lines.append(f'<text x="{x + CELL // 2}" y="{y + 20}" class="count">{count}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.0f}" height="{height}" class="{kind}"/>'


def main() -> int:
    DRAWING.write_text(draw(imports_by_room(ROOT)), "utf-8")
    print(f"wrote {DRAWING.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
