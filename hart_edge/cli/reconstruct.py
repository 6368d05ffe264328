"""`hart-edge reconstruct PICTURE`: a picture through a bundle's encoder and back, by both paths of the tokenizer."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hart_edge.api import find_bundle
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.generate import check_files, picture_files, write_png
from hart_edge.cli.progress import StatusLine
from hart_edge.cli.values import thread_number
from hart_edge.engines.loading import load
from hart_edge.errors import READING_FAULTS, InputError
from hart_edge.runtime.pipeline import Pipeline, Reconstruction

Load = Callable[..., Pipeline]
MARGIN = 4  # pixels between the pictures of the strip


def add(commands: Commands) -> None:
    p = new_command(
        commands,
        "reconstruct",
        "Encode a picture and decode it again: what a bundle's tokenizer can express at best, by its latent and by its "
        "codes.",
        run,
    )
    p.add_argument("picture", type=Path, metavar="PICTURE", help="any picture file; its middle square is taken")
    p.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="bundle folder (default: bundles/hart-emoji-int8, or the one that the installation carries)",
    )
    p.add_argument(
        "--threads", type=thread_number, metavar="N", help="threads inside an operator (default: one a core)"
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("reconstruction.png"),
        metavar="FILE.png",
        help="what was encoded, what the latent gives, and what the codes give, side by side (default: "
        "reconstruction.png)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(a: argparse.Namespace, load: Load = load) -> int:
    """load: the function that opens a bundle."""
    (out,) = picture_files(a.out, 1)
    check_files([out])
    picture = read_picture(a.picture)
    with StatusLine() as line:
        line.say("loading the bundle")
        folder = find_bundle(a.bundle)
        found = load(folder, threads=a.threads).reconstruct(picture)
    write_png(strip(found), out)
    continuous, discrete = (psnr(found.given, back) for back in (found.continuous, found.discrete))
    if a.json:
        told = {"picture": str(a.picture), "bundle": str(folder), "file": str(out), "size": found.given.size}
        psnrs = {"psnr_continuous": finite(continuous), "psnr_discrete": finite(discrete)}
        print(json.dumps({**told, **psnrs, "codes": found.codes.tolist()}))
    else:
        print(
            f"{out}: {a.picture} as encoded, from its latent ({continuous:.1f} dB PSNR), from its {len(found.codes)} "
            f"codes ({discrete:.1f} dB)"
        )
    return 0


def read_picture(file: Path) -> Image.Image:
    """A picture of any format that Pillow reads. Raises InputError."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except READING_FAULTS:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; expected a picture file") from error
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise InputError(f"{file}: expected a picture file, found none that can be read ({error})") from error


def strip(found: Reconstruction) -> Image.Image:
    """The three pictures side by side."""
    pictures, side = (found.given, found.continuous, found.discrete), found.given.width
    made = Image.new("RGB", (3 * side + 2 * MARGIN, side), "white")
    for number, picture in enumerate(pictures):
        made.paste(picture, (number * (side + MARGIN), 0))
    return made


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite where they are the same."""
    error = np.square(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
