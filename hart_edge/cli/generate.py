"""`hart-edge generate`: prompts in, PNG files out, with a bar while the scales are drawn.

Everything that can be wrong is found before the first scale is drawn: output files, prompts, settings, seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from hart_edge.api import find_bundle
from hart_edge.cli.tables import quoted
from hart_edge.engines.loading import load
from hart_edge.errors import HartEdgeError, InputError
from hart_edge.runtime.pipeline import Context, Event, Pipeline

BAR = 24  # characters
CLEAR = "\r\033[K"  # to the begin of the line, and nothing right of it


def run(a: argparse.Namespace) -> int:
    prompts: list[str | Context] = [*a.prompts] if a.context is None else [read_context(a.context)]
    files = picture_files(a.out, len(prompts))
    for file in files:
        check_writable(file)
    if a.previews is not None:
        make_folder(a.previews)
    with Bar() as bar:
        bar.say("loading the bundle")
        folder = find_bundle(a.bundle)
        pipeline = load(folder, threads=a.threads, low_memory=a.low_memory)
        settings: dict[str, Any] = {"cfg_scale": a.cfg_scale, "top_k": a.top_k, "top_p": a.top_p, "smooth": a.smooth}
        begun = [begin(pipeline, prompt, a.seed, settings, bar) for prompt in prompts]
        for prompt, (events, notes), file in zip(prompts, begun, files, strict=True):
            shown = quoted(prompt) if isinstance(prompt, str) else str(a.context)
            start = time.perf_counter()
            bar.start(shown)
            image, previews = draw(events, bar, a.previews, file.stem)
            write_png(image, file)
            seconds = time.perf_counter() - start
            bar.clear()
            if a.json:
                source = {"prompt": prompt} if isinstance(prompt, str) else {"context": str(a.context)}
                print(json.dumps({
                    **source, "seed": a.seed, **settings, "bundle": str(folder), "file": str(file),
                    "previews": [str(each) for each in previews], "size": image.size, "seconds": round(seconds, 3),
                    "warnings": notes,
                }), flush=True)  # fmt: skip
            else:
                print(f"{file}: {shown}, seed {a.seed}, {seconds:.1f} s", flush=True)
    return 0


def begin(
    pipeline: Pipeline, prompt: str | Context, seed: int, settings: dict[str, Any], bar: Bar
) -> tuple[Iterator[Event], list[str]]:
    """Check a prompt and its settings: (events to come, warnings). Raises InputError; draws nothing yet."""
    if isinstance(prompt, str) and pipeline.manifest.tokenizer is None:
        m = pipeline.manifest
        raise InputError(
            f"bundle {m.name!r} holds no text model, so it cannot read a prompt: expected --context FILE.npz with "
            f"context ({m.context_tokens}, {m.context_dim}) and context_mask ({m.context_tokens},) from your text "
            "model; or build from a checkpoint with text_model/"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        events = pipeline.stream(prompt, seed=seed, **settings)
    notes = [str(warning.message) for warning in caught]
    for note in notes:
        bar.clear()
        print(f"warning: {quoted(prompt)}: {note}" if isinstance(prompt, str) else f"warning: {note}", file=sys.stderr)
    return events, notes


def draw(events: Iterator[Event], bar: Bar, folder: Path | None, stem: str) -> tuple[Image.Image, list[Path]]:
    """Run a stream to its end: the picture, and the files of its previews."""
    previews: list[Path] = []
    image = None
    for event in events:
        bar.step(event.scale + 1, event.scales)
        if folder is not None:
            previews.append(folder / f"{stem}-scale-{event.scale + 1}.png")
            write_png(event.preview(), previews[-1])
        image = event.image
    assert image is not None  # the last event of a stream is the finished one
    return image, previews


def read_context(file: Path) -> Context:
    """The Context in an npz of context (T, D) and context_mask (T,). Raises InputError."""
    expected = "expected an npz file with context (T, D) float32 and context_mask (T,) bool"
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"--context {file}: {expected}, found a single array")
        with archive:
            missing = {"context", "context_mask"} - set(archive.files)
            if missing:
                found = ", ".join(sorted(archive.files)) or "nothing"
                raise InputError(f"--context {file}: {expected}, found {found}")
            return Context(archive["context"], archive["context_mask"])
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"--context {file}: {expected}, found {error}") from error


def picture_files(out: Path, count: int) -> list[Path]:
    """--out as it is for one picture, with -1, -2, ... before the ending for several."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: expected a name that ends with .png, found {out.suffix or 'no ending'!r}")
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def check_writable(file: Path) -> None:
    """Find out now whether the picture can be written later. Raises InputError."""
    try:
        target = file.resolve()  # of a link, the file behind it
        folder = target.parent
        if target.exists() and not target.is_file():
            raise InputError(f"--out {file}: expected a file or a new name, found a folder or device; name a file")
        if not folder.is_dir():
            raise InputError(f"--out {file}: expected the folder {folder}, found none; make it first")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise InputError(f"--out {file}: no file can be written there ({error}); name another folder") from error


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--previews {folder}: no file can be written there ({error}); name another folder") from error


def write_png(image: Image.Image, file: Path) -> None:
    """Write beside the file and rename: the name never holds half a picture. Raises HartEdgeError."""
    target = file.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as stream:
            image.save(stream, "PNG")
        part.replace(target)
    except OSError as error:
        raise HartEdgeError(f"{file}: could not be written ({error}); what was there before is unchanged") from error
    finally:
        part.unlink(missing_ok=True)


class Bar:
    """One line on a terminal that says what goes on; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._terminal, self._shown = sys.stderr.isatty(), False
        self._title, self._begun = "", 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def start(self, title: str) -> None:
        self._title, self._begun = title, time.perf_counter()
        self.say(f"{'[' + '.' * BAR + ']'}  {title}")

    def step(self, done: int, scales: int) -> None:
        filled = BAR * done // scales
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}]"
        self.say(f"{bar}  scale {done} of {scales}  {time.perf_counter() - self._begun:5.1f} s  {self._title}")

    def say(self, line: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"{CLEAR}{line[:width]}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            print(CLEAR, end="", file=sys.stderr, flush=True)
            self._shown = False
