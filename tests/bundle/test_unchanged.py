"""Files that are opened after their bundle must be the verified ones; else BundleError, however they were changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hart_edge.bundle.unchanged import Stamp
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.errors import BundleError
from tests.bundle.make_bundle import make_bundle

GRAPH = "graphs/decoder.onnx"
Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return settle(make_bundle(tmp_path / "around" / "tiny"))


def settle(folder: Path) -> Path:
    """Date the files long ago, as far as a program can: the kernel's time of change cannot be set."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return folder


def opened(bundle: Bundle, name: str = GRAPH) -> None:
    with bundle.opened(name) as path:
        assert path == bundle.folder / name


def other_bytes(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def in_place(path: Path) -> None:
    path.write_bytes(other_bytes(path))


def in_place_with_its_times(path: Path) -> None:
    found = path.stat()
    in_place(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def by_a_rename(path: Path) -> None:
    (path.parent / "new").write_bytes(other_bytes(path))
    (path.parent / "new").rename(path)


def whole_folder(path: Path) -> None:
    bundle = path.parents[1]
    shutil.copytree(bundle, bundle.parent / "new")
    in_place(bundle.parent / "new" / path.relative_to(bundle))
    bundle.rename(bundle.parent / "old")
    (bundle.parent / "new").rename(bundle)


def test_unchanged_files_are_opened(folder: Path) -> None:
    opened(open_bundle(folder))
    opened(open_bundle(folder), "tokenizer.json")


@pytest.mark.parametrize("change", [in_place, in_place_with_its_times, by_a_rename, whole_folder])
@pytest.mark.parametrize("name", [GRAPH, "graphs/text_model.onnx.data"])
def test_a_changed_file_is_refused(folder: Path, change: Change, name: str) -> None:
    """The same for a file beside a graph: its weights may lie there."""
    bundle = open_bundle(folder)
    change(folder / name)
    with pytest.raises(BundleError, match=f"^{name}: expected the file that was verified, found another; the bundle"):
        opened(bundle)


def test_a_removed_file_is_refused(folder: Path) -> None:
    bundle = open_bundle(folder)
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match=r"expected the file that was verified, found none \(No such file"):
        opened(bundle)


def test_a_link_that_leads_out_is_refused(folder: Path) -> None:
    bundle = open_bundle(folder)
    shutil.move(folder / GRAPH, folder.parent / "outside")
    (folder / GRAPH).symlink_to(folder.parent / "outside")
    with pytest.raises(BundleError, match="found a link that leads out of it"):
        opened(bundle)


def test_a_change_while_it_is_opened_is_refused(folder: Path) -> None:
    """Also where the engine fails on it first."""
    for fault in (None, RuntimeError("the engine read half of it")):
        bundle = open_bundle(folder)
        with pytest.raises(BundleError, match="found another"), bundle.opened(GRAPH) as path:
            in_place(path)
            if fault is not None:
                raise fault
        in_place(folder / GRAPH)  # flips the bit back


def test_the_same_bytes_again_are_the_same_file(folder: Path) -> None:
    bundle = open_bundle(folder)
    shutil.copytree(folder, folder.parent / "copy")
    shutil.rmtree(folder)
    (folder.parent / "copy").rename(folder)
    opened(bundle)


def test_files_in_other_folders_may_change(folder: Path) -> None:
    bundle = open_bundle(folder)
    in_place(folder / "README.md")
    opened(bundle)


def test_mapped_files_may_be_replaced_but_not_written(folder: Path) -> None:
    bundle = open_bundle(folder)
    kept = bundle.constant("up.1").copy()
    by_a_rename(folder / "constants.bin")
    bundle.require_unwritten()
    assert (bundle.constant("up.1") == kept).all()
    bundle = open_bundle_again(folder)
    in_place(folder / "constants.bin")
    with pytest.raises(BundleError, match=r"^constants\.bin: expected the file that .* found it written over"):
        bundle.require_unwritten()


def open_bundle_again(folder: Path) -> Bundle:
    by_a_rename(folder / "constants.bin")  # flips the bit back
    return open_bundle(folder)


def test_a_stamp_is_trusted_when_it_has_settled() -> None:
    assert not Stamp.of(Path(__file__))._replace(changed=2**62).is_settled()
    assert Stamp(1, 2, 3, 10**18, 10**18).is_settled()
