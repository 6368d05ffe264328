"""Debian's chromium, driven by playwright: for the tests of the page and its screenshots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser. Needs pip install playwright, and apt-get install chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        # A process of root has no sandbox of its own; nothing but our page is opened.
        started = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()
