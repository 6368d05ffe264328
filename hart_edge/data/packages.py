"""The public packages that the emoji set is made of: fetched with npm, checked against the hashes below, read unpacked.

In: nothing but these pins. Out: archives whose every byte is the one that was pinned. Nothing in them is executed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hart_edge.data.errors import DataError

log = logging.getLogger(__name__)

FETCH_SECONDS = 600  # for one package
SAID = 200  # characters of npm's own words in an error
NO_NETWORK = "see to the network, or name a folder that holds the archives with --packages"


@dataclass(frozen=True)
class Package:
    """One version of one npm package. integrity is the registry's own: base64 of the archive's SHA-512."""

    name: str
    version: str
    integrity: str
    part: str
    spdx: str
    attribution: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def archive(self) -> str:
        """The file name that npm pack gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


RENDERED = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "pictures, style 3d",
    "MIT",
    "Fluent Emoji, Microsoft Corporation; packed by LobeHub",
)
SHADED = Package(
    "@iconify-json/fluent-emoji",
    "1.2.7",
    "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
    "pictures, style 3d, where the rendering is missing",
    "MIT",
    "Fluent Emoji, Microsoft Corporation; packed by Iconify",
)
FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    "pictures, style flat",
    "MIT",
    "Fluent Emoji, Microsoft Corporation; packed by Iconify",
)
NOTO = Package(
    "@iconify-json/noto",
    "1.2.9",
    "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    "pictures, style noto",
    "Apache-2.0",
    "Noto Emoji, Google Inc.; packed by Iconify",
)
NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "captions",
    "MIT",
    "emojibase, Miles Johnson",
)
PACKAGES = (RENDERED, SHADED, FLAT, NOTO, NAMES)


@contextlib.contextmanager
def find_archives(
    folder: Path | None = None, packages: Sequence[Package] = PACKAGES, *, seconds: float = FETCH_SECONDS
) -> Iterator[dict[Package, Path]]:
    """The verified archive of every package: those of `folder`, or where that is None, fetched into a scratch folder.

    seconds: how long fetching one may take. Raises DataError where npm is missing or fails, or an archive is missing or
    not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="hart-edge-") as scratch:
        if folder is None:
            for package in packages:
                fetch(package, Path(scratch), seconds)
        yield {package: verify(package, folder or Path(scratch)) for package in packages}


def fetch(package: Package, folder: Path, seconds: float = FETCH_SECONDS) -> None:
    """Bring a package's archive into `folder` with npm. Raises DataError where npm is missing or fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            "expected the npm client on PATH, found none; install it (Debian, Ubuntu: sudo apt-get install npm), or on "
            f"a machine that has it run `npm pack {' '.join(str(each) for each in PACKAGES)}`, copy the archives here "
            "and name their folder with --packages"
        )
    log.info("fetching %s", package)
    command = [npm, "pack", str(package), "--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise DataError(f"npm did not bring {package} within {seconds:g} s; {NO_NETWORK}") from None
    if done.returncode != 0:
        lines = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines()]
        said = ", ".join(line for line in lines if line)[:SAID] or "without a word"
        raise DataError(f"npm could not bring {package} (exit status {done.returncode}: {said}); {NO_NETWORK}")


def verify(package: Package, folder: Path) -> Path:
    """The archive of a package in `folder`, once its bytes are the pinned ones. Raises DataError."""
    path = folder / package.archive
    if not path.is_file():
        raise DataError(f"{path}: missing; `npm pack {package}` makes it")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != package.integrity:
        raise DataError(
            f"{path}: expected {package.integrity}, found {found}: not the bytes that were published as {package}; "
            "fetch it again"
        )
    return path


def read_json(archive: Path, name: str) -> Any:
    """A JSON file of an archive; `name` as in the package, without npm's leading folder."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"package/{name}")
        assert file is not None  # the archive's bytes are pinned
        return json.load(file)


def read_files(archive: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    """(file name without folder, bytes) of every file that ends so, in the archive's order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() and member.name.endswith(ending) else None
            if file is not None:
                yield member.name.rsplit("/", 1)[-1], file.read()
