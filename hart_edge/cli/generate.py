"""`hart-edge generate`: prompts in, PNG files out, with a bar while the scales are drawn.

Everything that can be wrong is found before the first scale is drawn: output files, prompts, settings, seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hart_edge.api import find_bundle
from hart_edge.bundle.settings import Settings
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.progress import PictureLine
from hart_edge.cli.setting_options import add_setting_arguments, settings_of
from hart_edge.cli.tables import quoted
from hart_edge.cli.values import thread_number
from hart_edge.engines.loading import load
from hart_edge.errors import READING_FAULTS, HartEdgeError, InputError, border
from hart_edge.runtime.pipeline import Context, Event, Pipeline
from hart_edge.staging import hidden_name

Load = Callable[..., Pipeline]


def add(commands: Commands) -> None:
    p = new_command(
        commands, "generate", "Generate a PNG picture from a prompt; several prompts give several pictures.", run
    )
    p.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    p.add_argument("--bundle", type=Path, metavar="DIR", help="bundle folder (default: bundles/hart-emoji-int8)")
    p.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of every picture, 0 to 2**64 - 1 (default: 0)"
    )
    add_setting_arguments(p, "the bundle's")
    p.add_argument(
        "--threads", type=thread_number, metavar="N", help="threads inside an operator (default: one a core)"
    )
    p.add_argument("--low-memory", action="store_true", help="unload every graph after its last step: slower, smaller")
    p.add_argument(
        "--context",
        type=Path,
        metavar="FILE.npz",
        help="context (T, D) and context_mask (T,) in place of a prompt, for a bundle without a text model",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("picture.png"),
        metavar="FILE.png",
        help="picture file; several prompts give FILE-1.png, FILE-2.png, ... (default: picture.png)",
    )
    p.add_argument("--previews", type=Path, metavar="DIR", help="also write the picture as of every scale into DIR")
    p.add_argument("--json", action="store_true", help="print one JSON object for each picture instead of text")


def run(a: argparse.Namespace, load: Load = load) -> int:
    """load: the function that opens a bundle."""
    if bool(a.prompts) == (a.context is not None):
        a.refuse("expected a PROMPT, or --context FILE.npz for a bundle without a text model")
    prompts: list[str | Context] = [*a.prompts] if a.context is None else [read_context(a.context)]
    files = picture_files(a.out, len(prompts))
    for file in files:
        check_writable(file)
    if a.previews is not None:
        make_folder(a.previews)
    with PictureLine() as bar:
        bar.say("loading the bundle")
        folder = find_bundle(a.bundle)
        pipeline = load(folder, threads=a.threads, low_memory=a.low_memory)
        settings = settings_of(a)
        scales = len(pipeline.manifest.patch_nums)
        shown = [preview_files(a.previews, file, scales) if a.previews else [] for file in files]
        for each in itertools.chain(*shown):
            check_writable(each, "--previews")
        begun = [begin(pipeline, prompt, a.seed, settings, bar) for prompt in prompts]
        for prompt, (events, notes), file, previews in zip(prompts, begun, files, shown, strict=True):
            title = quoted(prompt) if isinstance(prompt, str) else str(a.context)
            start = time.perf_counter()
            bar.start(title)
            image = draw(events, bar, previews)
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
                print(f"{file}: {title}, seed {a.seed}, {seconds:.1f} s", flush=True)
    return 0


def begin(
    pipeline: Pipeline, prompt: str | Context, seed: int, settings: Settings, bar: PictureLine
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


def draw(events: Iterator[Event], bar: PictureLine, previews: Sequence[Path]) -> Image.Image:
    """Run a stream to its end: the picture. previews: a file for each scale, or none."""
    image = None
    for event in events:
        bar.step(event.scale + 1, event.scales)
        if previews:
            write_png(event.preview(), previews[event.scale])
        image = event.image
    assert image is not None  # the last event of a stream is the finished one
    return image


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
    except READING_FAULTS:
        raise
    except Exception as error:  # numpy and zipfile raise nearly anything
        raise InputError(f"--context {file}: {expected}, found {error}") from error


def picture_files(out: Path, count: int) -> list[Path]:
    """--out itself for one picture; for several, with -1, -2, ... before the ending."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: expected a name that ends with .png, found {out.suffix or 'no ending'!r}")
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def check_writable(file: Path, option: str = "--out") -> None:
    """Find out now whether the picture can be written later. Raises InputError."""
    try:
        target = file.resolve()  # the file behind a link
        folder = target.parent
        if target.exists() and not target.is_file():
            raise InputError(f"{option} {file}: expected a file or a new name, found a folder or device; name a file")
        if not folder.is_dir():
            raise InputError(f"{option} {file}: expected the folder {folder}, found none; make it first")
        if not target.exists():
            target.open("xb").close()  # the file system may not take the name
            target.unlink()
        elif of_others(target, folder):
            raise InputError(f"{option} {file}: belongs to another user, who alone may replace it; name another file")
        part = part_of(target)
        part.open("xb").close()
        part.unlink()
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a NUL
        raise InputError(f"{option} {file}: no file can be written there ({error}); name another folder") from error


def of_others(file: Path, folder: Path) -> bool:
    """Whether a folder such as /tmp keeps this user from replacing the file of another."""
    within = folder.stat()
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    return bool(within.st_mode & stat.S_ISVTX) and user not in (0, within.st_uid, file.stat().st_uid)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"--previews {folder}: no file can be written there ({error}); name another folder") from error


def preview_files(folder: Path, file: Path, scales: int) -> list[Path]:
    return [folder / f"{file.stem}-scale-{scale + 1}.png" for scale in range(scales)]


def part_of(target: Path) -> Path:
    """What a picture is called until it is whole."""
    return target.with_name(hidden_name(target.parent, target.name, f".{os.getpid()}.part"))


def write_png(image: Image.Image, file: Path) -> None:
    """Write beside the file and rename: the name never holds half a picture. Raises HartEdgeError."""
    unchanged = "what was there before is unchanged"
    with border(HartEdgeError, file, "could not be written", unchanged):
        target = file.resolve()
        part = part_of(target)
        try:
            with part.open("xb") as stream:
                image.save(stream, "PNG")
            part.replace(target)
        except OSError as error:
            raise HartEdgeError(f"{file}: could not be written ({error}); {unchanged}") from error
        finally:
            part.unlink(missing_ok=True)
