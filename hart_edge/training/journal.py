"""What a run tells: a log line a minute, TensorBoard, sample sheets.

OUT/tensorboard/ has every figure; OUT/sheets/ the sheets; the log goes where logging sends it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from hart_edge.training.checkpoints import write_atomically
from hart_edge.units import duration

log = logging.getLogger(__name__)


class Journal:
    """Collects the terms of every step; a line has their means since the line before. Silent where it is not main."""

    def __init__(self, folder: Path, step: int, steps: int, batch: int, main: bool) -> None:
        self.folder, self.steps, self.batch = folder, steps, batch
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.last, self.last_time = step, time.monotonic()
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) if main else None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def note(self, terms: dict[str, Tensor]) -> None:
        if self.writer is not None:
            for name, value in terms.items():
                total, count = self.sums.get(name, (torch.zeros(()), 0))
                self.sums[name] = total + value.detach().float().cpu(), count + 1

    def line(self, step: int, rate: float) -> None:
        """One log line: where the run is, how fast, how long still at that speed, and the means of the terms."""
        assert self.writer is not None
        means = {name: float(total) / count for name, (total, count) in self.sums.items()}
        now = time.monotonic()
        speed = (step - self.last) / max(now - self.last_time, 1e-9)
        left = (self.steps - step) / speed
        shown = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        log.info(
            "step %d of %d  %.1f examples/s  %s left at this speed  %s  rate %.2e",
            step, self.steps, speed * self.batch, duration(left), shown, rate,
        )  # fmt: skip
        for name, value in means.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.writer.add_scalar("train/rate", rate, step)
        self.writer.add_scalar("train/examples_per_second", speed * self.batch, step)
        self.sums, self.last, self.last_time = {}, step, now

    def figures(self, step: int, figures: dict[str, float]) -> None:
        assert self.writer is not None
        log.info("step %d, validation: %s", step, "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        for name, value in figures.items():
            self.writer.add_scalar(f"validation/{name}", value, step)

    def sheet(self, step: int, sheet: Image.Image) -> None:
        assert self.writer is not None
        file = self.folder / "sheets" / f"step-{step:08d}.png"
        write_atomically(file, lambda stream: sheet.save(stream, "PNG"))
        self.writer.add_image("sheet", np.asarray(sheet), step, dataformats="HWC")
