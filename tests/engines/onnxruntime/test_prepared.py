"""Prepared graphs: the same numbers from files that are written once, verified, and refused when they are not ours."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime import prepared
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import EngineError
from tests.bundle.make_bundle import make_bundle
from tests.engines.fake_library import entry

F_HAT = np.random.default_rng(0).standard_normal((2, 4, 2, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def draw(bundle: Path, folder: Path | None) -> bytes:
    outputs = {"pixels": np.zeros((2, 32, 32, 3), np.uint8), "finite": np.zeros(2, np.bool_)}
    OnnxRuntimeRunner(open_bundle(bundle), prepared=folder).run("decoder", {"f_hat": F_HAT}, outputs)
    return outputs["pixels"].tobytes()


def files_in(folder: Path) -> dict[str, int]:
    return {str(each.relative_to(folder)): each.stat().st_mtime_ns for each in folder.rglob("*") if each.is_file()}


def test_a_graph_is_written_once_and_draws_the_same(bundle: Path, tmp_path: Path) -> None:
    expected, folder = draw(bundle, None), tmp_path / "new" / "prepared"
    assert draw(bundle, folder) == expected
    written = files_in(folder)
    assert sorted(Path(each).name for each in written) == ["files.json", "graph.onnx", "graph.onnx.data"]
    assert [each.name.startswith("decoder-") for each in folder.iterdir()] == [True]  # and nothing half written
    assert draw(bundle, folder) == expected
    assert files_in(folder) == written


def test_another_processor_or_library_has_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = draw(bundle, tmp_path)
    monkeypatch.setattr(prepared, "processor", lambda: "another")
    assert draw(bundle, tmp_path) == expected
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["graph.onnx", "graph.onnx.data", "files.json"])
def test_an_altered_file_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    draw(bundle, tmp_path)
    (place,) = tmp_path.iterdir()
    (place / name).write_bytes(b"altered")
    with pytest.raises(
        EngineError, match=rf"decoder-\w+: the prepared graph .*delete {place}, and it is written anew$"
    ):
        draw(bundle, tmp_path)


def test_a_file_that_went_is_refused(bundle: Path, tmp_path: Path) -> None:
    draw(bundle, tmp_path)
    (place,) = tmp_path.iterdir()
    (place / "graph.onnx").unlink()
    with pytest.raises(EngineError, match=r"decoder-\w+: the prepared graph .*is written anew$"):
        draw(bundle, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_folder_that_others_may_write_to(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(EngineError, match=r"only its owner can write to, found others may; chmod go-w "):
        draw(bundle, folder)
    assert not list(folder.iterdir())


def test_a_file_in_place_of_the_folder(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"file: expected a folder for prepared graphs, found none \("):
        draw(bundle, tmp_path / "file")


def test_a_graph_that_cannot_be_written(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library refuses the path where it is to leave the graph, as it does a full disk; nothing is left."""
    monkeypatch.setattr(prepared, "GRAPH", "nowhere/graph.onnx")
    with pytest.raises(
        EngineError, match=r"decoder-\w+: the prepared graph cannot be written \(.*leave the folder out$"
    ):
        draw(bundle, tmp_path)
    assert not list(tmp_path.iterdir())


def test_engines_are_prepared_already(bundle: Path, tmp_path: Path) -> None:
    """The entry of an engine library, in place of the one that this bundle is for."""
    registry = REGISTRY.replaced(entry(Target.CPU))
    with pytest.raises(
        EngineError, match=r"^prepared: expected a bundle for cpu, found one for cpu, whose engines are"
    ):
        load(bundle, prepared=tmp_path / "prepared", registry=registry)
    assert not (tmp_path / "prepared").exists()
