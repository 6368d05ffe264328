"""Pictures for the model card: the sheet of samples and the curves of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import curves, samples
from hart_edge.training.journal import Journal

BLUE = (0, 0, 255)


def test_every_picture_of_a_sheet_has_its_place_and_its_prompt() -> None:
    pictures = [Image.new("RGB", (128, 128), BLUE) for _ in range(10)]
    sheet = np.asarray(samples.sheet(pictures, [*["a red heart"] * 9, ""]))
    blue = (sheet == BLUE).all(-1)
    assert int(blue.sum()) == 10 * 128 * 128
    rows, columns = blue[:, 10], blue[10]  # through the first picture of every row, and of every column
    assert int(rows.sum()) == 2 * 128 and int(columns.sum()) == 8 * 128
    assert blue[samples.MARGIN : samples.MARGIN + 128, samples.MARGIN : samples.MARGIN + 128].all()
    below = sheet[samples.MARGIN + 128 : samples.MARGIN + 128 + samples.LINE_HEIGHT]
    assert (below[:, samples.MARGIN : samples.MARGIN + 128] < 128).any()  # black letters
    end = sheet[-samples.MARGIN - 3 * samples.LINE_HEIGHT :, samples.MARGIN + 128 + samples.MARGIN :]
    assert (end == 255).all()  # the last prompt is empty, and no picture follows


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
