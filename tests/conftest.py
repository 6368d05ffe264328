"""Bundles that many tests share: built once a run, every graph traced once."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import export.build
from calib.forms import Int8Form
from export.build import SHIPPED_MODEL, BuildOptions, build
from export.graphs import GraphModule
from runtime.manifest import Precision

GOLDEN = Path(__file__).parent / "golden"
FLAVOURS = ("adaln", "shared-adaln", "plain")

BuildOnce = Callable[[Path, Precision], Path]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as jobs that a script puts into the background have it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Within a run, tracing a graph with the same weights again gives a copy of the first result."""
    trace, folder = export.build.export_graph, tmp_path_factory.mktemp("traced")

    def trace_once(graph: GraphModule, path: Path) -> None:
        digest = hashlib.sha256(repr((graph.name, graph.inputs, graph.outputs)).encode())
        for name, tensor in graph.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        first = folder / digest.hexdigest()
        if not first.is_dir():
            first.mkdir()
            trace(graph, first / path.name)
        shutil.copytree(first, path.parent, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.build, "export_graph", trace_once)
        yield


@pytest.fixture(scope="session")
def build_once(traced_once: None, tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """Build a checkpoint at a precision for the cpu, once a run. Tests must not change the folder."""
    built: dict[tuple[Path, Precision], Path] = {}
    root = tmp_path_factory.mktemp("bundles")

    def build_bundle(checkpoint: Path, precision: Precision) -> Path:
        key = (checkpoint, precision)
        if key not in built:
            out = root / f"{checkpoint.name}-{precision}"
            build(BuildOptions(checkpoint, out, precision, int8_form=Int8Form.STATIC))  # the same on every machine
            built[key] = out
        return built[key]

    return build_bundle


@pytest.fixture(scope="session")
def int8_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at int8."""
    return build_once(SHIPPED_MODEL, Precision.INT8)


@pytest.fixture(scope="session")
def fp16_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at fp16."""
    return build_once(SHIPPED_MODEL, Precision.FP16)


@pytest.fixture(scope="session")
def fp32_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at fp32."""
    return build_once(SHIPPED_MODEL, Precision.FP32)


@pytest.fixture(scope="session", params=FLAVOURS)
def golden_bundle(request: pytest.FixtureRequest, build_once: BuildOnce) -> Path:
    """Each golden checkpoint at fp32; it takes a context array."""
    return build_once(GOLDEN / request.param, Precision.FP32)
