"""Pictures for the model card: the sheet of samples and the curves of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import curves, samples, sheet
from hart_edge.engines.loading import load
from hart_edge.training.journal import Journal
from tests.runtime.words_bundle import make_words_bundle

BLUE = (0, 0, 255)


def test_every_picture_of_a_sheet_has_its_place_and_its_prompt() -> None:
    pictures = [Image.new("RGB", (128, 128), BLUE) for _ in range(10)]
    drawn = np.asarray(samples.sheet(pictures, [*["a red heart"] * 9, ""]))
    blue = (drawn == BLUE).all(-1)
    assert int(blue.sum()) == 10 * 128 * 128
    rows, columns = blue[:, 10], blue[10]  # through the first picture of every row, and of every column
    assert int(rows.sum()) == 2 * 128 and int(columns.sum()) == 8 * 128
    assert blue[samples.MARGIN : samples.MARGIN + 128, samples.MARGIN : samples.MARGIN + 128].all()
    below = drawn[samples.MARGIN + 128 : samples.MARGIN + 128 + samples.LINE_HEIGHT]
    assert (below[:, samples.MARGIN : samples.MARGIN + 128] < 128).any()  # black letters
    end = drawn[-samples.MARGIN - 3 * samples.LINE_HEIGHT :, samples.MARGIN + 128 + samples.MARGIN :]
    assert (end == 255).all()  # the last prompt is empty, and no picture follows


def test_prompts_of_a_file_are_drawn_with_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_words_bundle(tmp_path / "words")
    (tmp_path / "prompts.txt").write_text("# a comment\n\nw1 w2\n w3 \nw1 w2\n", "utf-8")
    out = tmp_path / "sheet.png"
    samples.main([str(bundle), "--prompts", str(tmp_path / "prompts.txt"), "--seed", "7", "--out", str(out)])
    assert capsys.readouterr().out == f"wrote {out}: 3 pictures, seed 7\n"
    prompts = ["w1 w2", "w3", "w1 w2"]
    with Image.open(out) as drawn:
        assert drawn.tobytes() == samples.sheet(load(bundle).generate(prompts, seed=[7, 7, 7]), prompts).tobytes()


def test_a_row_of_pictures_says_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, out = make_words_bundle(tmp_path / "words"), tmp_path / "row.png"
    sheet.main([str(bundle), "--prompts", "w1 w2", "w3", "--seed", "4", "--out", str(out)])
    assert capsys.readouterr().out == f"{out}, from left to right: 1 w1 w2, 2 w3\n"
    with Image.open(out) as drawn:
        assert drawn.size == (2 * (32 + sheet.MARGIN) + sheet.MARGIN, 32 + 2 * sheet.MARGIN)


def test_the_everyday_prompts_are_64_and_half_name_no_style() -> None:
    prompts = samples.read_prompts(Path(samples.__file__).with_name("everyday_prompts.txt"))
    assert len(prompts) == len(set(prompts)) == 64
    styles = ("3d", "flat", "noto")
    assert sum(not any(style in prompt.lower().split() for style in styles) for prompt in prompts) >= 32


def test_curves_of_a_run_that_was_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for first, values in ((0, {10: 1.0, 20: 2.0}), (10, {20: 4.0, 30: 5.0})):
        with Journal(tmp_path, first, 30, 1, True) as journal:
            for step, value in values.items():
                journal.figures(step, {"psnr": value})
    points = [(10, 1.0, 0.0), (20, 4.0, 0.0), (30, 5.0, 0.0)]
    assert curves.curve_of([tmp_path], "validation/psnr").points == points
    behind = [(30 + step, value, spread) for step, value, spread in points]
    assert curves.curve_of([tmp_path, tmp_path], "validation/psnr").points == [*points, *behind]
    out = tmp_path / "docs" / "run.svg"
    asked = [str(tmp_path), "--title", "A run", "--unit", "dB", "--out", str(out), "--figures"]
    assert curves.main([*asked, "validation/psnr"]) == 0
    assert "A run" in out.read_text("utf-8") and out.read_text("utf-8").count("<circle") == 3
    assert curves.main([*asked, "validation/ssim"]) == 1
    assert "expected one of validation/psnr, found validation/ssim" in capsys.readouterr().err
