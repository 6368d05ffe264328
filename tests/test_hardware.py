"""What has run on real hardware is told in one place, docs/hardware.json, and the pages show that."""

from __future__ import annotations

import pytest

from hart_edge.bundle.manifest import Target
from tests.draw_hardware import BETWEEN, PAGES, ROOT, draw, rows


@pytest.mark.parametrize("page", PAGES)
def test_the_page_shows_the_table(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert len(BETWEEN.findall(text)) == 1
    assert text == draw(page), f"{page} shows another table; write it again: python -m tests.draw_hardware"


def test_every_target_has_a_line_and_every_line_a_target() -> None:
    assert {row["target"] for row in rows()} == set(Target)


def test_what_has_not_run_has_no_figures_of_drawing() -> None:
    for row in rows():
        assert set(row) == {"target", "on", "built", "ran", "figures"} and all(row.values())
        if not row["ran"].startswith("yes: "):
            assert "not yet" in row["ran"] or "no GPU yet" in row["ran"] or "on no ARM processor yet" in row["ran"]
            assert any(word in row["figures"] for word in ("none", "no times")), row
