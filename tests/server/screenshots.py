"""Pictures of the page for the documents: python -m tests.server.screenshots [BUNDLE [FOLDER]]

It serves a bundle, draws with the page, and writes page.png, page-forming.png, page-dark.png and page-phone.png. Needs
what tests/server/test_page.py needs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.server.browser import browser
from tests.server.running import ROOT, started

PICTURES = (("woman scientist: dark skin tone", "noto", 4), ("a red heart", "flat", 11), ("man astronaut", "3d", 7))
VIEWS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1180, "height": 860}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1180, "height": 860}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def draw(page: Any, prompt: str, style: str, seed: int) -> None:
    page.fill("#prompt", prompt)
    page.fill("#seed", str(seed))
    if page.locator(f"input[name=style][value='{style}']").count():
        page.check(f"input[name=style][value='{style}']", force=True)
    page.press("#prompt", "Enter")
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Done')", timeout=300_000)
    page.wait_for_selector("#draw:not([hidden])")


def main(bundle: str = "bundles/hart-emoji-int8", folder: str = "docs/images") -> int:
    out = ROOT / folder
    command = [sys.executable, "-m", "hart_edge", "serve", bundle, "--port", "0"]
    with tempfile.TemporaryDirectory() as own, started(command, Path(own) / "log") as server, browser() as program:
        for name, view in VIEWS.items():
            page = program.new_context(**view).new_page()
            page.goto(server.address)
            page.wait_for_function("() => document.getElementById('facts').textContent")
            for picture in PICTURES:
                draw(page, *picture)
            page.evaluate("() => document.activeElement.blur()")
            page.wait_for_timeout(700)
            page.screenshot(path=out / f"{name}.png")
            if name == "page":
                page.focus("#scale")
                for _ in range(3):
                    page.keyboard.press("ArrowLeft")
                page.wait_for_timeout(700)
                page.locator(".stage").screenshot(path=out / "page-forming.png")
            print(out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
