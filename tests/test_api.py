"""hart_edge.generate: which bundle it uses, when it loads it again, and what it says when there is none."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import hart_edge
from hart_edge.api import DEFAULT_BUNDLE, _load_cached, find_bundle
from hart_edge.engines.loading import load
from hart_edge.errors import BundleError
from hart_edge.runtime.pipeline import Pipeline
from tests.bundle.corrupt_bundles import alter
from tests.bundle.corrupt_manifests import put
from tests.runtime.words_bundle import make_words_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may change"""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def tiny(pristine: Path) -> Pipeline:
    return load(pristine)


def digest(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_without_the_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError) as caught:
        hart_edge.generate("a red heart")
    assert str(tmp_path) in str(caught.value)
    assert "`python -m export.build --precision int8`" in str(caught.value)


def test_the_default_bundle_lies_in_the_current_folder(
    pristine: Path, tiny: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pristine, tmp_path / DEFAULT_BUNDLE)
    monkeypatch.chdir(tmp_path)
    assert digest(hart_edge.generate("w1", seed=2)) == digest(tiny.generate("w1", seed=2))
    assert digest(hart_edge.generate(["w1"], seed=[2])[0]) == digest(tiny.generate("w1", seed=2))


def test_the_installation_s_bundle_comes_after_the_current_folder_s(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the wheel of a device carries; a bundle that was built here goes before it, a named one before both."""
    packaged = Path(shutil.copytree(pristine, tmp_path / "installed"))
    monkeypatch.chdir(tmp_path)
    assert find_bundle(None, packaged) == packaged
    shutil.copytree(pristine, tmp_path / DEFAULT_BUNDLE)
    assert find_bundle(None, packaged) == DEFAULT_BUNDLE
    assert find_bundle("mine", packaged) == Path("mine")


def test_without_any_bundle_one_line_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip install .` in a checkout."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BundleError, match=r"^no bundle was named, bundles/hart-emoji-int8 is not in .*export\.build.*make wh"
    ):
        find_bundle(None, tmp_path / "none")


def test_a_missing_bundle_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"nowhere: expected a bundle folder, found none; build one with python -m export\.build"
    ):
        hart_edge.generate("a red heart", bundle=tmp_path / "nowhere")


def test_a_bundle_stays_loaded_until_it_is_built_again(folder: Path, tmp_path: Path) -> None:
    _load_cached.cache_clear()
    before = digest(hart_edge.generate("w1", bundle=folder))
    assert digest(hart_edge.generate("w1", bundle=str(folder))) == before
    assert (_load_cached.cache_info().misses, _load_cached.cache_info().hits) == (1, 1)
    shutil.copytree(folder, tmp_path / "built")  # as a build does: a new folder takes the old one's place
    put("sampling", "cfg_scale", value=0.0)(tmp_path / "built")
    folder.rename(tmp_path / "old")
    (tmp_path / "built").rename(folder)
    after = digest(hart_edge.generate("w1", bundle=folder))
    assert after != before and after == digest(load(tmp_path / "old").generate("w1", cfg_scale=0.0))


def test_a_bundle_that_was_built_again_within_a_tick_of_the_clock(folder: Path) -> None:
    """A build wrote the same inode at the same time; and one that is copied over in place is loaded anew."""
    _load_cached.cache_clear()
    before = digest(hart_edge.generate("w1", bundle=folder))
    manifest = folder / "manifest.json"
    found = manifest.stat()
    put("sampling", "cfg_scale", value=0.0)(folder)
    os.utime(manifest, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert digest(hart_edge.generate("w1", bundle=folder)) != before
    constants = folder / "constants.bin"
    constants.write_bytes(constants.read_bytes())
    assert digest(hart_edge.generate("w1", bundle=folder)) != before
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match="expected a bundle folder, found none"):
        hart_edge.generate("w1", bundle=folder)


def test_a_bundle_that_was_altered_makes_no_picture(int8_bundle: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(int8_bundle, tmp_path / "spoilt")
    alter("graphs/transformer.onnx")(spoilt)
    with pytest.raises(BundleError, match=r"^graphs/transformer\.onnx: expected sha256 .*: the file was altered; copy"):
        hart_edge.generate("a red heart", bundle=spoilt)
