"""The nodes for ComfyUI, loaded and called as ComfyUI does: by file, by INPUT_TYPES, one node's output to the next.

`comfy.utils` and `comfy.model_management` are of ComfyUI, which is no package; here they are what the nodes may expect
of them by its documents.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hart_edge
from tests.runtime.words_bundle import make_words_bundle
from tests.server.running import Server, serving, until

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
KINDS = {"STRING": str, "INT": int, "FLOAT": float}


class InterruptedByUserError(Exception):
    """What ComfyUI raises when its user clicks on Cancel."""


class Comfy:
    """What a run of ComfyUI would show, and whether its user has cancelled."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, Any]] = []
        self.cancel_after = 10**9

    def modules(self) -> dict[str, types.ModuleType]:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int, node_id: str | None = None) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                comfy.shown.append((value, self.total, preview))

        def throw_exception_if_processing_interrupted() -> None:
            if len(comfy.shown) >= comfy.cancel_after:
                raise InterruptedByUserError

        package, utils, management = (types.ModuleType(f"comfy{name}") for name in ("", ".utils", ".model_management"))
        utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
        management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted  # type: ignore[attr-defined]
        package.utils, package.model_management = utils, management  # type: ignore[attr-defined]
        return {"comfy": package, "comfy.utils": utils, "comfy.model_management": management}


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    it = Comfy()
    for name, module in it.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return it


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """The folder as a module of the name that ComfyUI gives it."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for each in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[each]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("words") / "tiny")


@pytest.fixture(scope="module")
def server(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), words) as it:
        yield it


def run(nodes: Any, workflow: dict[str, Any], wanted: str) -> tuple[Any, ...]:
    """The outputs of a node of a workflow, after those that it needs."""
    node = workflow[wanted]
    kind = nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
    declared = kind.INPUT_TYPES()
    given = {}
    for name, value in node["inputs"].items():
        assert name in declared["required"]
        given[name] = run(nodes, workflow, value[0])[value[1]] if isinstance(value, list) else value
        expected, *options = declared["required"][name]
        if expected in ("INT", "FLOAT"):
            assert options[0]["min"] <= given[name] <= options[0]["max"]
    assert given.keys() == declared["required"].keys()
    if "unique_id" in declared.get("hidden", {}):
        given["unique_id"] = wanted
    outputs = getattr(kind(), kind.FUNCTION)(**given)
    assert isinstance(outputs, tuple) and len(outputs) == len(kind.RETURN_TYPES)
    return outputs


def workflow(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = {"prompt": "w1 w2", "seed": 2**64 - 1, "batch_size": 1, "cfg_scale": -1, "top_p": -1}
    inputs = {"source": ["1", 0], **asked, **more}
    return {"1": source, "2": {"class_type": "HartEdgeGenerate", "inputs": inputs}}


@pytest.fixture(params=["bundle", "server"])
def source(request: pytest.FixtureRequest, words: Path) -> dict[str, Any]:
    if request.param == "bundle":
        return {"class_type": "HartEdgeBundle", "inputs": {"folder": str(words), "threads": 1}}
    found: Server = request.getfixturevalue("server")
    return {"class_type": "HartEdgeServer", "inputs": {"address": f"{found.address}/"}}


def test_the_nodes_are_what_comfyui_asks_for(nodes: Any) -> None:
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        declared = kind.INPUT_TYPES()
        parameters = inspect.signature(getattr(kind, kind.FUNCTION)).parameters
        names = {*declared["required"], *declared.get("hidden", {})}
        assert names == set(parameters) - {"self"}
        assert isinstance(kind.RETURN_TYPES, tuple) and isinstance(kind.CATEGORY, str)
        for expected, *options in declared["required"].values():
            if expected in KINDS:
                assert isinstance(options[0]["default"], KINDS[expected])
    example = json.loads((FOLDER / "workflow.json").read_text())
    assert {each["class_type"] for each in example.values()} == {"HartEdgeServer", "HartEdgeGenerate", "SaveImage"}
    declared = nodes.NODE_CLASS_MAPPINGS["HartEdgeGenerate"].INPUT_TYPES()["required"]
    assert example["2"]["inputs"].keys() == declared.keys()


def test_pictures_are_those_of_the_library(nodes: Any, comfy: Comfy, source: dict[str, Any], words: Path) -> None:
    (images,) = run(nodes, workflow(source, batch_size=2, cfg_scale=2.0), "2")
    assert images.dtype == torch.float32 and tuple(images.shape) == (2, 32, 32, 3)
    for image, seed in zip(images, (2**64 - 1, 0), strict=True):
        expected = hart_edge.generate("w1 w2", bundle=words, seed=seed, cfg_scale=2.0)
        assert (np.round(image.numpy() * 255) == np.asarray(expected)).all()
    assert [shown[:2] for shown in comfy.shown] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    previews = [event.preview() for event in hart_edge.load(words).stream("w1 w2", seed=2**64 - 1, cfg_scale=2.0)]
    assert [shown[2][1].tobytes() for shown in comfy.shown[:2]] == [each.tobytes() for each in previews]
    assert comfy.shown[0][2][0] == "PNG" and isinstance(comfy.shown[0][2][2], int)


def test_cancel_stops_the_drawing(nodes: Any, comfy: Comfy, source: dict[str, Any], request: Any) -> None:
    comfy.cancel_after = 1
    with pytest.raises(InterruptedByUserError):
        run(nodes, workflow(source, prompt="w10"), "2")
    assert len(comfy.shown) == 1
    if source["class_type"] == "HartEdgeServer":
        server: Server = request.getfixturevalue("server")
        until(lambda: server.metric("hart_edge_drawing") == 0, 10)
        assert server.metric("hart_edge_pictures_total", bundle="tiny-2", outcome="cancelled") >= 1


def test_errors_are_words(nodes: Any, comfy: Comfy, server: Server) -> None:
    at = {"class_type": "HartEdgeServer", "inputs": {"address": server.address}}
    for prompt, words in (("zebra", r"hart-edge: prompt: 'zebra' has no token"), ("w13", "has not enough memory")):
        with pytest.raises(RuntimeError, match=words):
            run(nodes, workflow(at, prompt=prompt), "2")
    nowhere = {"class_type": "HartEdgeServer", "inputs": {"address": "http://127.0.0.1:9"}}
    with pytest.raises(RuntimeError, match=r"expected a server at .*, found none .*; start one with hart-edge serve"):
        run(nodes, workflow(nowhere), "2")


def test_a_key_comes_from_the_environment(
    nodes: Any, comfy: Comfy, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "locked", words, api_key="0123456789abcdef") as server:
        at = {"class_type": "HartEdgeServer", "inputs": {"address": server.address}}
        with pytest.raises(RuntimeError, match="expected the server's key"):
            run(nodes, workflow(at), "2")
        monkeypatch.setenv("HART_EDGE_API_KEY", "0123456789abcdef")
        assert run(nodes, workflow(at), "2")[0].shape == (1, 32, 32, 3)
