"""Fetching packages with npm, for which a script stands in, and checking what it brings."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from hart_edge.data.errors import DataError
from hart_edge.data.packages import PACKAGES, RENDERED, Package, find_archives, read_files, read_json
from tests.data.made_up_emoji import write_archive

ARCHIVES = [
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "iconify-json-fluent-emoji-1.2.7.tgz",
    "iconify-json-fluent-emoji-flat-1.2.6.tgz",
    "iconify-json-noto-1.2.9.tgz",
    "emojibase-data-17.0.0.tgz",
]


def pinned(path: Path, name: str = "@scope/small") -> Package:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return Package(name, "1.0.0", integrity, "part", "MIT", "someone")


@pytest.fixture
def small(tmp_path: Path) -> Package:
    """A package whose archive is in tmp_path/published."""
    (tmp_path / "published").mkdir()
    path = write_archive(tmp_path / "published" / "scope-small-1.0.0.tgz", {"a.json": b"[1]", "b/c.txt": b"text"})
    package = pinned(path)
    return package


def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make a path with only a program `npm` and what it needs."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def test_the_pins() -> None:
    assert [package.archive for package in PACKAGES] == ARCHIVES
    assert str(RENDERED) == "@lobehub/fluent-emoji-3d@1.1.0"
    for package in PACKAGES:
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package.integrity)
        assert package.spdx in ("MIT", "Apache-2.0")


def test_npm_downloads_an_archive(small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/published/*.tgz .')
    with find_archives(packages=[small]) as archives:
        path = archives[small]
        assert read_json(path, "a.json") == [1]
        assert dict(read_files(path, ".txt")) == {"c.txt": b"text"}
        scratch = path.parent
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:3] == ["pack", "@scope/small@1.0.0", "--ignore-scripts"] and asked[-1] == str(scratch)
    assert not scratch.exists()


def test_a_folder_of_archives_needs_no_npm(small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with find_archives(tmp_path / "published", [small]) as archives:
        assert archives == {small: tmp_path / "published" / "scope-small-1.0.0.tgz"}
    with (
        pytest.raises(DataError, match=r"none/scope-small-1.0.0.tgz: missing; `npm pack @scope/small@1.0.0` makes it"),
        find_archives(tmp_path / "none", [small]),
    ):
        pass


def test_other_bytes_are_refused(small: Package, tmp_path: Path) -> None:
    path = tmp_path / "published" / small.archive
    path.write_bytes(path.read_bytes() + b"\0")
    expected = (
        rf"expected {re.escape(small.integrity)}, found sha512-.*: not the bytes that were published as @scope/small"
    )
    with pytest.raises(DataError, match=expected), find_archives(tmp_path / "published", [small]):
        pass


def test_no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError) as caught, find_archives():
        pass
    told = str(caught.value)
    assert told.startswith("expected the npm client on PATH, found none; install it")
    assert all(f"{package.name}@{package.version}" in told for package in PACKAGES) and "--packages" in told


def test_npm_fails(small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path, monkeypatch, 'echo "npm error code ETARGET\nnpm error\nnpm error no such version" >&2; exit 3')
    expected = (
        r"npm could not bring @scope/small@1.0.0 \(exit status 3: code ETARGET, no such version\); see to the network"
    )
    with pytest.raises(DataError, match=expected), find_archives(packages=[small]):
        pass


def test_npm_hangs(small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path, monkeypatch, "exec sleep 5")
    expected = r"npm did not bring @scope/small@1.0.0 within 0.1 s; see to"
    with pytest.raises(DataError, match=expected), find_archives(packages=[small], seconds=0.1):
        pass
