"""How a PNG records how it was drawn: writing, reading back, and files whose metadata is missing or malformed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hart_edge.errors import InputError
from hart_edge.reference.sampling import published_sampling
from hart_edge.runtime.context import Context
from hart_edge.runtime.picture_metadata import (
    KEYWORD,
    PARAMETERS,
    PictureMetadata,
    asked_settings,
    context_sha256,
    read_metadata,
    save_png,
    used_settings,
)

SETTINGS = {"cfg_scale": 4.5, "top_k": [9, 3], "top_p": 0.5, "smooth": True}
METADATA = PictureMetadata("0.1.0", "ein Herz, \u2764\ufe0f", 2**64 - 1, SETTINGS, "hearts", "ab" * 32)


def written(file: Path, metadata: PictureMetadata | None) -> Path:
    with file.open("wb") as stream:
        save_png(Image.new("RGB", (3, 3), "red"), stream, metadata)
    return file


def test_metadata_is_read_back_as_written(tmp_path: Path) -> None:
    file = written(tmp_path / "heart.png", METADATA)
    assert read_metadata(file) == METADATA
    assert file.read_bytes() == written(tmp_path / "again.png", METADATA).read_bytes()


def test_other_programs_find_the_metadata(tmp_path: Path) -> None:
    with Image.open(written(tmp_path / "heart.png", METADATA)) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        told = json.loads(image.text[KEYWORD])
        assert told["seed"] == 2**64 - 1 and told["settings"] == SETTINGS and "context_sha256" not in told
        first, second = image.text[PARAMETERS].splitlines()
    assert first == METADATA.prompt
    assert second.startswith("Seed: 18446744073709551615, cfg_scale: 4.5, top_k: [9, 3], ")
    assert second.endswith("Model: hearts, Model hash: ababababab, Version: hart-edge 0.1.0")


def test_a_context_is_identified_by_its_sha256(tmp_path: Path) -> None:
    tokens = np.arange(6, dtype=np.float64).reshape(3, 2)
    found = context_sha256(Context(tokens, np.array([True, True, False])))  # type: ignore[arg-type]
    assert found == context_sha256(Context(tokens.astype(np.float32), np.array([1, 1, 0], bool)))
    assert found != context_sha256(Context(tokens.astype(np.float32), np.array([1, 0, 0], bool)))
    metadata = PictureMetadata("0.1.0", None, 1, SETTINGS, "hearts", "ab" * 32, found)
    assert read_metadata(written(tmp_path / "heart.png", metadata)) == metadata


def test_settings_that_were_used_can_be_asked_for() -> None:
    own = dataclasses.replace(published_sampling(3, 4096), top_k=(9, 9, 3))
    used = used_settings(own)
    assert used == {"cfg_scale": 4.5, "top_k": [9, 9, 3], "top_p": 1.0, "smooth": True, "speed": "exact"}
    assert asked_settings(used, own) == {name: value for name, value in used.items() if name != "top_k"}
    assert asked_settings({**used, "top_k": 7}, own)["top_k"] == 7
    with pytest.raises(InputError, match=r"drawn with top_k \[1, 2, 3\], one for each scale, and this"):
        asked_settings({**used, "top_k": [1, 2, 3]}, own)
    with pytest.raises(InputError, match="drawn with a setting 'later', which this version lacks"):
        asked_settings({**used, "later": 1}, own)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"settings": [1]},
        {"seed": -1},
        {"seed": "7"},
        {"seed": True},
        {"prompt": 3},
        {"prompt": None},
        {"bundle": None},
        {"bundle_sha256": 3},
    ],
)
def test_malformed_metadata_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(KEYWORD, json.dumps({**json.loads(METADATA.to_json()), **change}))
    Image.new("RGB", (1, 1)).save(tmp_path / "odd.png", pnginfo=chunks)
    with pytest.raises(InputError, match="found a note that cannot be read"):
        read_metadata(tmp_path / "odd.png")


def test_files_without_metadata(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a command or the server writes one, image\.save\(\) in Python and other"):
        read_metadata(written(tmp_path / "bare.png", None))
    Image.new("RGB", (1, 1)).save(tmp_path / "picture.jpg")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"nowhere\.png: no such file; expected a PNG file as hart-edge writes it$"):
        read_metadata(tmp_path / "nowhere.png")
    for name in ("picture.jpg", "text.png", "."):
        with pytest.raises(InputError, match="expected a PNG file as hart-edge writes it, found something else"):
            read_metadata(tmp_path / name)
    for note in ("no json", "[]", "[" * 100_000, '{"settings": {}}'):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(KEYWORD, note)
        Image.new("RGB", (1, 1)).save(tmp_path / "odd.png", pnginfo=chunks)
        with pytest.raises(InputError, match="found a note that cannot be read"):
            read_metadata(tmp_path / "odd.png")
