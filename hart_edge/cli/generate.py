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
from typing import Any

import numpy as np
from PIL import Image

from hart_edge import __version__
from hart_edge.api import find_bundle
from hart_edge.bundle.settings import Settings, merged, over
from hart_edge.bundle.verify import Bundle
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.progress import PictureLine
from hart_edge.cli.setting_options import add_setting_arguments, settings_of
from hart_edge.cli.tables import quoted
from hart_edge.cli.values import thread_number
from hart_edge.engines.loading import load
from hart_edge.errors import READING_FAULTS, HartEdgeError, InputError, border
from hart_edge.runtime.context import Context
from hart_edge.runtime.picture_metadata import (
    PictureMetadata,
    asked_settings,
    context_sha256,
    read_metadata,
    save_png,
    used_settings,
)
from hart_edge.runtime.pipeline import Event, Pipeline
from hart_edge.staging import hidden_file, staged_file, sweep_files

Load = Callable[..., Pipeline]


def add(commands: Commands) -> None:
    p = new_command(
        commands, "generate", "Generate a PNG picture from a prompt; several prompts give several pictures.", run
    )
    p.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    p.add_argument("--bundle", type=Path, metavar="DIR", help="bundle folder (default: bundles/hart-emoji-int8)")
    p.add_argument("--seed", type=int, metavar="N", help="seed of every picture, 0 to 2**64 - 1 (default: 0)")
    add_setting_arguments(p, "the bundle's")
    p.add_argument(
        "--like",
        type=Path,
        metavar="FILE.png",
        help="draw as this picture was drawn: its prompt, seed and settings, where no argument says otherwise",
    )
    p.add_argument(
        "--threads", type=thread_number, metavar="N", help="threads inside an operator (default: one a core)"
    )
    p.add_argument("--low-memory", action="store_true", help="unload every graph after its last step: slower, smaller")
    p.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        help="keep the graphs of a cpu bundle here as they are once open, for processes to share (docs/memory.md)",
    )
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
    if (a.prompts and a.context) or not (a.prompts or a.context or a.like):
        a.refuse("expected a PROMPT, --like FILE.png, or --context FILE.npz for a bundle without a text model")
    like = None if a.like is None else read_metadata(a.like)
    prompts = prompts_of(a, like)
    seed = a.seed if a.seed is not None else like.seed if like else 0
    files = picture_files(a.out, len(prompts))
    check_files(files)
    if a.previews is not None:
        make_folder(a.previews)
    note_on_quotes(a.prompts)
    with PictureLine() as bar:
        bar.say("loading the bundle")
        folder = find_bundle(a.bundle)
        pipeline = load(folder, threads=a.threads, low_memory=a.low_memory, prepared=a.prepared)
        settings = settings_of(a)
        if like:
            settings = merged(asked_settings(like.settings, pipeline.manifest.sampling), settings)
            warn_of_difference(a.like, like, pipeline.bundle, prompts, bar)
        scales = len(pipeline.manifest.patch_nums)
        shown = [preview_files(a.previews, file, scales) if a.previews else [] for file in files]
        check_files([*itertools.chain(*shown)], "--previews")
        begun = [begin(pipeline, prompt, seed, settings, bar) for prompt in prompts]
        used = used_settings(over(pipeline.manifest.sampling, settings))
        for prompt, (events, notes), file, previews in zip(prompts, begun, files, shown, strict=True):
            title = quoted(prompt) if isinstance(prompt, str) else str(a.context)
            start = time.perf_counter()
            bar.start(title)
            image = draw(events, bar, previews)
            write_png(image, file, metadata_of(pipeline.bundle, prompt, seed, used))
            seconds = time.perf_counter() - start
            bar.clear()
            if a.json:
                source = {"prompt": prompt} if isinstance(prompt, str) else {"context": str(a.context)}
                print(json.dumps({
                    **source, "seed": seed, **used, "bundle": str(folder), "bundle_sha256": pipeline.bundle.sha256,
                    "version": __version__, "file": str(file),
                    "previews": [str(each) for each in previews], "size": image.size, "seconds": round(seconds, 3),
                    "warnings": notes,
                }), flush=True)  # fmt: skip
            else:
                print(f"{file}: {title}, seed {seed}, {seconds:.1f} s", flush=True)
    return 0


def prompts_of(a: argparse.Namespace, like: PictureMetadata | None) -> list[str | Context]:
    """What to draw: arguments, or what a picture was drawn from. Raises InputError."""
    if a.context is not None:
        return [read_context(a.context)]
    if a.prompts:
        return [*a.prompts]
    assert like is not None  # run() has refused a call that names nothing to draw
    if like.prompt is None:
        raise InputError(
            f"--like {a.like}: was drawn from a context array, which a picture does not hold; pass it as well: "
            "--context FILE.npz"
        )
    return [like.prompt]


def note_on_quotes(prompts: Sequence[str]) -> None:
    """Several prompts of one word each may be one prompt whose quotes were forgotten."""
    if len(prompts) > 1 and not any(" " in prompt for prompt in prompts):
        print(
            f'note: {len(prompts)} prompts, a picture each; "{" ".join(prompts)}" in quotes is one prompt',
            file=sys.stderr,
        )


def warn_of_difference(
    file: Path, like: PictureMetadata, bundle: Bundle, prompts: Sequence[str | Context], bar: PictureLine
) -> None:
    """Say what is another than it was, so that the picture will be another."""
    notes = []
    if like.bundle_sha256 != bundle.sha256:
        notes.append(
            f"was drawn by bundle {like.bundle!r}, sha256 {like.bundle_sha256[:12]}..., and this is "
            f"{bundle.manifest.name!r}, {bundle.sha256[:12]}..., which draws another picture"
        )
    contexts = [context_sha256(prompt) for prompt in prompts if isinstance(prompt, Context)]
    if like.context_sha256 is not None and contexts not in ([], [like.context_sha256]):
        notes.append("was drawn from another context array, so this will be another picture")
    for note in notes:
        bar.clear()
        print(f"warning: --like {file}: {note}", file=sys.stderr)


def metadata_of(bundle: Bundle, prompt: str | Context, seed: int, used: dict[str, Any]) -> PictureMetadata:
    text, context = (prompt, None) if isinstance(prompt, str) else (None, context_sha256(prompt))
    return PictureMetadata(__version__, text, seed, used, bundle.manifest.name, bundle.sha256, context)


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
    except FileNotFoundError as error:
        raise InputError(f"--context {file}: no such file; {expected}") from error
    except Exception as error:  # numpy and zipfile raise nearly anything
        raise InputError(f"--context {file}: {expected}, found {error}") from error


def picture_files(out: Path, count: int) -> list[Path]:
    """--out itself for one picture; for several, with -1, -2, ... before the ending."""
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: expected a name that ends with .png, found {out.suffix or 'no ending'!r}")
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def check_files(files: Sequence[Path], option: str = "--out") -> None:
    """check_writable() of each; what killed processes left of the same pictures goes."""
    for file in files:
        check_writable(file, option)
    with border(InputError, option, "no file can be written there", "name another folder"):
        sweep_files(file.resolve() for file in files)


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
        with hidden_file(target):
            pass
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
    return [folder / f"{file.stem}-scale-{scale}.png" for scale in range(scales)]


def write_png(image: Image.Image, file: Path, metadata: PictureMetadata | None = None) -> None:
    """Write beside the file and rename: the name never holds half a picture. Raises HartEdgeError."""
    unchanged = "what was there before is unchanged"
    with border(HartEdgeError, file, "could not be written", unchanged):
        try:
            with staged_file(file.resolve()) as stream:
                save_png(image, stream, metadata)
        except OSError as error:
            raise HartEdgeError(f"{file}: could not be written ({error}); {unchanged}") from error
