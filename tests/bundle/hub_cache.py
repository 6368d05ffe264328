"""A bundle as huggingface_hub keeps it, ENTRY/snapshots/REVISION/file -> ENTRY/blobs/HASH; and links that lead out.

For the tests of Python's reader and of the C runtime's.
"""

import shutil
from pathlib import Path

from tests.bundle.make_bundle import list_files

# Where a repository may have a bundle. A folder inside a repository may be called snapshots too.
DEPTHS = ("", "int8", "bundles/fp16/cpu", "snapshots/step100")


def hub_cache(bundle: Path, entry: Path, depth: str = "") -> Path:
    """Lay `bundle` out as a cache entry, `depth` below its revision, and return its folder."""
    snapshot = entry / "snapshots" / "0123abcd" / depth
    (entry / "blobs").mkdir(parents=True)
    for index, name in enumerate(["manifest.json", *list_files(bundle)]):
        shutil.copy(bundle / name, entry / "blobs" / f"{index:040x}")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (2 + len(Path(depth).parts) + name.count("/"))
        (snapshot / name).symlink_to(f"{up}blobs/{index:040x}")
    return snapshot


def _relink(snapshot: Path, target: Path) -> None:
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to(target)


def _blob_to_outside(entry: Path, snapshot: Path) -> None:
    blob = (snapshot / "README.md").resolve()
    shutil.move(blob, entry.parent / "outside")
    blob.symlink_to(entry.parent / "outside")


def _below_blobs(entry: Path, snapshot: Path) -> None:
    deeper = entry / "blobs" / "deeper"
    deeper.mkdir()
    shutil.copy(snapshot / "README.md", deeper / "x")
    _relink(snapshot, deeper / "x")


def _beside_blobs(entry: Path, snapshot: Path) -> None:
    shutil.copy(snapshot / "README.md", entry / "x")
    _relink(snapshot, entry / "x")


def _blobs_of_another_entry(entry: Path, snapshot: Path) -> None:
    other = entry.parent / "models--other" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(snapshot / "README.md", other / "x")
    _relink(snapshot, other / "x")


def _blobs_around_the_entry(entry: Path, snapshot: Path) -> None:
    """A cache entry inside a folder with the same names: only its own blobs, the nearest, may be linked to."""
    around = entry.parent / "snapshots" / "0123abcd"
    around.mkdir(parents=True)
    (entry.parent / "blobs").mkdir()
    shutil.copy(snapshot / "README.md", entry.parent / "blobs" / "x")
    _relink(snapshot, entry.parent / "blobs" / "x")


def _blobs_are_a_link(entry: Path, snapshot: Path) -> None:
    (entry / "blobs").rename(entry.parent / "elsewhere")
    (entry / "blobs").symlink_to(entry.parent / "elsewhere")


def _blobs_are_elsewhere(entry: Path, snapshot: Path) -> None:
    """The folders around the bundle are called neither snapshots nor blobs."""
    moved = entry.parent / "elsewhere"
    (entry / "blobs").rename(moved)
    for link in [each for each in snapshot.rglob("*") if each.is_symlink()]:
        blob = moved / Path(link.readlink()).name
        link.unlink()
        link.symlink_to(blob)


def _folder_is_blobs(entry: Path, snapshot: Path) -> None:
    """The file is no link, but the folder that it lies in is a link to blobs."""
    for link in (snapshot / "graphs").iterdir():
        shutil.copy(link, entry / "blobs" / link.name)
    shutil.rmtree(snapshot / "graphs")
    (snapshot / "graphs").symlink_to(entry / "blobs")


def _another_revision(entry: Path, snapshot: Path) -> None:
    other = entry / "snapshots" / "ffff"
    other.mkdir()
    shutil.copy(snapshot / "README.md", other / "README.md")
    _relink(snapshot, other / "README.md")


def _another_bundle_of_the_revision(entry: Path, snapshot: Path) -> None:
    other = entry / "snapshots" / "0123abcd" / "other"
    other.mkdir()
    shutil.copy(snapshot / "README.md", other / "README.md")
    if snapshot == other.parent:  # there the link would stay inside the bundle
        other = shutil.move(other, entry / "snapshots" / "other")
    _relink(snapshot, Path(other) / "README.md")


WAYS_OUT = (
    _blob_to_outside,
    _below_blobs,
    _beside_blobs,
    _blobs_of_another_entry,
    _blobs_around_the_entry,
    _blobs_are_a_link,
    _blobs_are_elsewhere,
    _folder_is_blobs,
    _another_revision,
    _another_bundle_of_the_revision,
)
