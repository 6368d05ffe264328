"""Bundles on disk: a complete one opens from a folder and from a hub cache, a spoilt one says what is wrong."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from hart_edge.bundle.manifest import Buffer, BufferKind
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import BundleError
from tests.bundle.corrupt_bundles import (
    CORRUPTIONS,
    alter,
    graph_edit,
    relist,
    set_external,
)
from tests.bundle.corrupt_manifests import Corruption, manifest_edit, put
from tests.bundle.hub_cache import DEPTHS, WAYS_OUT, hub_cache
from tests.bundle.make_bundle import give_engines, make_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, two folders deep so that edits can put files around it."""
    return shutil.copytree(pristine, tmp_path / "around" / "tiny")


def test_a_whole_bundle_opens(folder: Path) -> None:
    bundle = open_bundle(str(folder))
    assert bundle.folder == folder
    assert bundle.manifest.name == "tiny-2"
    assert bundle.path("graphs/decoder.onnx") == folder / "graphs" / "decoder.onnx"


def test_a_bundle_of_engines_opens(folder: Path) -> None:
    """Only the library that built an engine can read it; its bytes are verified like those of any file."""
    give_engines(folder)
    bundle = open_bundle(folder)
    assert {each.file for each in bundle.manifest.components} == {
        f"engines/{name}.engine" for name in ("text_model", "transformer", "tokens", "latent", "decoder")
    }
    assert bundle.path("engines/decoder.engine").read_bytes() == b"engine of decoder"
    alter("engines/decoder.engine")(folder)
    with pytest.raises(BundleError, match=r"^engines/decoder\.engine: expected sha256 .* the file was altered; copy"):
        open_bundle(folder)


def test_only_listed_names_have_a_path(folder: Path) -> None:
    bundle = open_bundle(folder)
    for name in ("manifest.json", "../tiny/README.md", "graphs"):
        with pytest.raises(BundleError, match=r"expected a name in manifest\.files, found "):
            bundle.path(name)


def test_constants_are_read_only_views(folder: Path) -> None:
    bundle = open_bundle(folder)
    up = bundle.constant("up.1")
    stored = np.frombuffer((folder / "constants.bin").read_bytes(), "<f4", 16, offset=256)
    assert up.shape == (4, 4) and up.dtype == np.float32 and not up.flags.writeable
    np.testing.assert_array_equal(up.ravel(), stored)
    with pytest.raises(BundleError, match="expected a name in constants, found 'down'"):
        bundle.constant("down")


def test_every_step_runs_and_writes_what_the_plan_says(folder: Path) -> None:
    """Other tests rely on it: plan, buffers and graphs of make_bundle agree in every dtype and extent."""
    bundle = open_bundle(folder)
    images = {"B": 3, "2B": 6}

    def extents(buffer: Buffer) -> tuple[int, ...]:
        return tuple(images[entry] if isinstance(entry, str) else entry for entry in buffer.shape)

    values = {}
    for name, buffer in bundle.manifest.plan.buffers.items():
        values[name] = np.ones(extents(buffer), buffer.dtype.value)
        if buffer.kind is BufferKind.CONSTANT:
            values[name] = bundle.constant(buffer.constant or "")
        elif buffer.kind is BufferKind.SETTING and buffer.setting == "top_k":
            values[name][:] = bundle.manifest.sampling.top_k[buffer.scale or 0]
    files = {component.name: bundle.path(component.file) for component in bundle.manifest.components}
    for step in bundle.manifest.plan.steps:
        session = onnxruntime.InferenceSession(files[step.graph], providers=["CPUExecutionProvider"])
        outputs = session.run(list(step.outputs), {key: values[name] for key, name in step.inputs.items()})
        for name, output in zip(step.outputs.values(), outputs, strict=True):
            buffer = bundle.manifest.plan.buffers[name]
            assert (output.shape, str(output.dtype)) == (extents(buffer), buffer.dtype.value)
            values[name] = output
    assert values["finite"].tolist() == [True] * 3
    assert 10 < values["pixels"].std() < 128


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_spoilt_bundle_is_refused(folder: Path, corruption: Corruption) -> None:
    corruption.edit(folder)
    with pytest.raises(BundleError) as refusal:
        open_bundle(folder)
    message = str(refusal.value)
    assert corruption.message in message
    assert "expected" in message and "found" in message and ";" in message  # the remedy follows a semicolon
    assert "\0" not in message and "\n" not in message and len(message) < 1200


def test_a_missing_folder_says_how_to_build_one(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(
            BundleError, match=r"found none( \(.*\))?; build one with python -m export\.build --precision int8"
        ):
            open_bundle(path)


def test_a_misspelt_folder_names_the_bundle_that_was_meant(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the folder, or in bundles/ of the current folder; what is no bundle is not named."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pristine, tmp_path / "bundles" / "hart-emoji-int8")
    (tmp_path / "bundles" / "hart-emoji-int9").mkdir()
    for given in ("bundles/hart-emoji-int9x", "bundles/hart-emoij-int8", "bundels/hart-emoji-int8", "hart-emoji-int"):
        with pytest.raises(BundleError) as refused:
            open_bundle(given)
        assert str(refused.value) == (
            f"{given}: expected a bundle folder, found none; did you mean bundles/hart-emoji-int8? If not, build one "
            "with python -m export.build --precision int8"
        )
    with pytest.raises(BundleError, match="found none; build one with"):
        open_bundle("bundles/another")


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle folder, found a file; build one with"):
        open_bundle(folder / "README.md")


def test_files_that_are_not_listed_are_ignored(folder: Path) -> None:
    (folder / ".gitattributes").write_text("* binary\n")
    (folder / "secret").symlink_to("/etc/passwd")
    assert open_bundle(folder).manifest.name == "tiny-2"


def test_links_inside_the_folder_and_to_the_folder_are_followed(folder: Path) -> None:
    (folder / "graphs").rename(folder / "store")
    (folder / "graphs").symlink_to("store")
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert open_bundle(link).folder == folder


def _without_constants(manifest: Any) -> None:
    manifest["constants"] = {}
    for buffer in manifest["plan"]["buffers"].values():
        if buffer.pop("constant", None):
            buffer["kind"] = "zero"


def test_a_bundle_without_constants_opens(folder: Path) -> None:
    """An empty constants.bin is a special case, because zero bytes cannot be mapped."""
    manifest_edit(_without_constants)(folder)
    (folder / "constants.bin").write_bytes(b"")
    relist(folder, "constants.bin")
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match=r"expected a name in constants, found 'up\.1'"):
        bundle.constant("up.1")


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_hub_cache_opens_and_its_graphs_load(pristine: Path, tmp_path: Path, depth: str) -> None:
    bundle = open_bundle(hub_cache(pristine, tmp_path / "models--hart--tiny", depth))
    assert bundle.path("graphs/text_model.onnx").is_symlink()
    assert bundle.constant("up.0").shape == (4, 1)
    for component in bundle.manifest.components:  # weights beside the link, not beside the blob
        onnxruntime.InferenceSession(bundle.path(component.file), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("edit", WAYS_OUT, ids=lambda edit: edit.__name__)
def test_links_of_a_hub_cache_that_lead_out_are_refused(
    pristine: Path, tmp_path: Path, depth: str, edit: Callable[[Path, Path], None]
) -> None:
    entry = tmp_path / "models--hart--tiny"
    snapshot = hub_cache(pristine, entry, depth)
    edit(entry, snapshot)
    with pytest.raises(BundleError, match="expected a file inside the bundle, found a link that leads out of it to"):
        open_bundle(snapshot)


def test_external_data_in_a_folder_beside_the_graph_must_be_listed(folder: Path) -> None:
    """Names are relative to the graph's own folder, so a listed file elsewhere does not count."""

    def point_at_constants(model: onnx.ModelProto) -> None:
        set_external(model.graph.initializer[0], location="constants.bin", offset="0", length="64")

    graph_edit(point_at_constants, "graphs/text_model.onnx")(folder)
    with pytest.raises(BundleError, match=r"beside the graph, found 'constants\.bin'"):
        open_bundle(folder)


def test_a_bundle_is_frozen(folder: Path) -> None:
    bundle = open_bundle(folder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.folder = folder
    put("name", value="other")(folder)
    assert bundle.manifest.name == "tiny-2"
