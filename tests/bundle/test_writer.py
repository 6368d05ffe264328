"""The one writer of bundles: it writes all or nothing, keeps what was there on failure, and lists every file."""

import dataclasses
import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.files import file_entry, list_files, sha256_of
from hart_edge.bundle.manifest import CONSTANT_ALIGNMENT, Manifest, parse
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import BundleWriter, bundle_name, take_name, unfinished_folder, write_bundle
from hart_edge.errors import BuildError, BundleError
from tests.bundle.make_bundle import make_bundle, make_no_bundle


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("source") / "tiny")


def write_copy(writer: BundleWriter, tiny: Path) -> Manifest:
    manifest = parse((tiny / "manifest.json").read_bytes())
    for name in manifest.files:
        writer.copy(tiny / name, name)
    return writer.finish(dataclasses.replace(manifest, files={}), "# Another card\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_bundle_takes_its_name_at_the_end(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    with write_bundle(out) as writer:
        written = write_copy(writer, tiny)
        assert not out.exists() and writer.folder.parent == out.parent
    assert open_bundle(out).manifest == written and (out / "README.md").read_text() == "# Another card\n"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_bundle_that_was_there_is_replaced(tiny: Path, tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "bundle")
    (out / "stray.txt").write_text("of the earlier build")
    with write_bundle(out) as writer:
        write_copy(writer, tiny)
    assert not (out / "stray.txt").exists() and [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_folder_or_file_that_is_no_bundle_is_left_alone(tmp_path: Path, kind: str) -> None:
    out, message = make_no_bundle(tmp_path, kind)
    before = contents(tmp_path)
    with pytest.raises(BuildError, match=message), write_bundle(out):
        pass
    assert contents(tmp_path) == before


ERRORS = {
    errno.ENOSPC: r"bundle: the disk is full \(.*\); nothing was left behind. Make room or choose another --out",
    errno.EDQUOT: r"bundle: the disk is full \(.*\); nothing was left behind. Make room or choose another --out",
    errno.EACCES: r"bundle: the bundle cannot be written \(\[Errno \d+\] not here\); choose another --out",
    errno.EROFS: r"bundle: the bundle cannot be written \(\[Errno \d+\] not here\); choose another --out",
    errno.EPERM: r"bundle: the bundle cannot be written \(\[Errno \d+\] not here\); choose another --out",
}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("error", ERRORS)
def test_a_failing_disk_leaves_what_was_there(tiny: Path, tmp_path: Path, error: int, earlier: bool) -> None:
    out = tmp_path / "bundle"
    if earlier:
        make_bundle(out)
    before = contents(tmp_path)
    with pytest.raises(BuildError, match=ERRORS[error]), write_bundle(out) as writer:
        write_copy(writer, tiny)
        raise OSError(error, "not here")
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if earlier else [])


def test_other_errors_leave_no_files_either(tmp_path: Path) -> None:
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), write_bundle(tmp_path / "deep" / "bundle") as writer:
            writer.write("part", b"written")
            raise error
    assert contents(tmp_path) == {}
    with pytest.raises(BuildError, match=r"bundle: the disk fails .*odd"), write_bundle(tmp_path / "bundle"):
        raise OSError(errno.EIO, "odd")
    assert contents(tmp_path) == {}


def test_a_place_below_a_file_or_a_name_too_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for out in (tmp_path / "file" / "bundle", tmp_path / ("x" * 300)):
        message = r"the bundle cannot be written .*; choose another --out"
        with pytest.raises(BuildError, match=message), write_bundle(out):
            pass
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("failing", [1, 2])
def test_an_earlier_bundle_survives_a_failing_rename(tmp_path: Path, failing: int) -> None:
    """Between the two renames no bundle has the name; if the second fails, the earlier bundle gets it back."""
    for name in ("new", "bundle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    before, calls = contents(tmp_path), []

    def rename(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        os.rename(source, target)

    with pytest.raises(PermissionError):
        take_name(tmp_path / "new", tmp_path / "bundle", rename)
    assert contents(tmp_path) == before and len(list(tmp_path.iterdir())) == 2


def test_a_build_that_resumes_finds_what_was_finished(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    message = r"the disk is full \(.*\); make room and run this again"
    with pytest.raises(BuildError, match=message), write_bundle(out, resume=True) as writer:
        writer.write("engines/first.engine", b"finished")
        writer.write("engines/other.engine", b"of other settings")
        raise OSError(errno.ENOSPC, "full")
    assert not out.exists() and sorted(contents(unfinished_folder(out))) == [
        "engines/first.engine",
        "engines/other.engine",
    ]
    with write_bundle(out, resume=True) as writer:
        assert (writer.folder / "engines/first.engine").read_bytes() == b"finished"
        writer.keep_only({"engines/first.engine"})
        written = write_copy(writer, tiny)
    assert "engines/first.engine" in written.files and "engines/other.engine" not in written.files
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_whose_manifest_no_reader_would_accept_is_not_written(tiny: Path, tmp_path: Path) -> None:
    manifest = parse((tiny / "manifest.json").read_bytes())
    with pytest.raises(BundleError, match="expected a path in files"), write_bundle(tmp_path / "bundle") as writer:
        writer.finish(manifest, "# Without a graph\n")
    assert contents(tmp_path) == {}


def test_constants_are_aligned(tmp_path: Path) -> None:
    arrays = {"odd": np.arange(3, dtype=np.uint8), "wide": np.ones((2, 3), np.float32), "none": np.zeros((0, 4))[:, :0]}
    arrays["none"] = arrays["none"].astype(np.float32)
    entries = BundleWriter(tmp_path).constants(arrays)
    assert [entry.offset for entry in entries.values()] == [0, CONSTANT_ALIGNMENT, 2 * CONSTANT_ALIGNMENT]
    data = (tmp_path / "constants.bin").read_bytes()
    for name, entry in entries.items():
        assert data[entry.offset : entry.offset + entry.nbytes] == arrays[name].tobytes()


def test_files_are_listed_with_size_and_hash(tmp_path: Path) -> None:
    writer = BundleWriter(tmp_path)
    writer.write("graphs/a.onnx", b"graph")
    writer.write("b", b"x" * (5 * 2**20))
    writer.write("manifest.json", b"{}")
    assert list(list_files(tmp_path)) == ["b", "graphs/a.onnx"]
    assert file_entry(tmp_path / "b").bytes == 5 * 2**20
    assert sha256_of(tmp_path / "b") == hashlib.sha256(b"x" * (5 * 2**20)).hexdigest()


def test_names_come_from_the_folder() -> None:
    names = {"hart-emoji-int8": "hart-emoji-int8", "my bundle (2)": "my-bundle--2-", "..": "bundle", ".": "bundle"}
    for given, expected in (names | {"bundles/ü": "bundle", "x" * 200: "x" * 100}).items():
        assert bundle_name(Path(given)) == expected, given
    random = {"big": "big-random", "big-random": "big-random", "x" * 200: "x" * 93 + "-random", "..": "bundle-random"}
    for given, expected in random.items():
        assert bundle_name(Path(given), random=True) == expected, given
        assert not bundle_name(Path(expected)).endswith("-random"), given  # these weights are not random
