"""Styles and examples of a model card: a checkpoint's README.md names them, a bundle's repeats, the server offers."""

from pathlib import Path

import pytest

from hart_edge.bundle.card import NO_HINTS, PromptHints, read_hints, write_card
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
    assert read_hints(tmp_path) == NO_HINTS
    (tmp_path / "README.md").write_text(text)
    assert read_hints(tmp_path) == PromptHints(styles=styles)


@pytest.mark.parametrize(
    ("text", "examples"),
    [
        (
            "# A\n\nExamples: `red heart`, `thumbs up: dark skin tone`, `x`.\n",
            ("red heart", "thumbs up: dark skin tone", "x"),
        ),
        ("Examples: `a`, `a`, ` b`, `" + "x" * 81 + "`, `c`\nExamples: `d`\n", ("a", "c")),
        ("Examples: " + ", ".join(f"`p{number}`" for number in range(20)), tuple(f"p{number}" for number in range(12))),
        ("Its Examples: `a`\n", ()),
        ("Examples: a, b\n", ()),
    ],
)
def test_examples_of_a_card(tmp_path: Path, text: str, examples: tuple[str, ...]) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_hints(tmp_path) == PromptHints(examples=examples)


def test_a_bundles_card_repeats_them(tmp_path: Path) -> None:
    manifest = open_bundle(make_bundle(tmp_path / "tiny")).manifest
    hints = read_hints(SHIPPED_MODEL)
    assert hints.styles == ("3d", "flat", "noto")
    assert hints.examples[:2] == ("penguin", "hamburger") and len(hints.examples) == 8
    (tmp_path / "README.md").write_text(write_card(manifest, "a machine", 1.0, "a command", hints=hints))
    assert read_hints(tmp_path) == hints
    (tmp_path / "README.md").write_text(write_card(manifest, "a machine", 1.0, "a command"))
    assert read_hints(tmp_path) == NO_HINTS
