"""The styles that a model card names: what a checkpoint's README.md says, a bundle's repeats, and the server offers."""

from pathlib import Path

import pytest

from hart_edge.bundle.card import read_styles, write_card
from hart_edge.bundle.verify import open_bundle
from hart_edge.reference.presets import SHIPPED_MODEL
from tests.bundle.make_bundle import make_bundle


@pytest.mark.parametrize(
    ("text", "styles"),
    [
        ("# A\n\nStyles: `3d`, `flat`, `noto`.\n", ("3d", "flat", "noto")),
        ("Styles: `a`, `a`, `b c`, `" + "x" * 41 + "`\nStyles: `d`\n", ("a",)),
        ("It has Styles: `3d`\n", ()),
        ("Styles: 3d, flat\n", ()),
        ("", ()),
    ],
)
def test_styles_of_a_card(tmp_path: Path, text: str, styles: tuple[str, ...]) -> None:
    assert read_styles(tmp_path) == ()
    (tmp_path / "README.md").write_text(text)
    assert read_styles(tmp_path) == styles


def test_a_bundles_card_repeats_them(tmp_path: Path) -> None:
    manifest, styles = open_bundle(make_bundle(tmp_path / "tiny")).manifest, read_styles(SHIPPED_MODEL)
    assert styles == ("3d", "flat", "noto")
    (tmp_path / "README.md").write_text(write_card(manifest, "a machine", 1.0, "a command", styles=styles))
    assert read_styles(tmp_path) == styles
    (tmp_path / "README.md").write_text(write_card(manifest, "a machine", 1.0, "a command"))
    assert read_styles(tmp_path) == ()
