"""ONNX Runtime: the engine of the targets cpu and cuda. The graph itself is the engine; nothing is built ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hart_edge.bundle.manifest import Target
from hart_edge.engines.base import Arrays, Availability
from hart_edge.engines.onnxruntime.library import PROVIDERS, load_library, session_options
from hart_edge.errors import EngineError

EXTRAS = {Target.CPU: "cpu", Target.CUDA: "gpu"}


class OnnxRuntimeSession:
    """A graph opened in ONNX Runtime."""

    def __init__(self, graph: Path, target: Target) -> None:
        self._name, onnxruntime = graph.stem, load_library()
        options = session_options(onnxruntime, None)
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=[PROVIDERS[target]])
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(f"{self._name}: ONNX Runtime {onnxruntime.__version__} refused it ({error})") from error

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        names = list(outputs) if outputs is not None else [value.name for value in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # as above
            raise EngineError(f"{self._name}: ONNX Runtime failed while running ({error})") from error


class OnnxRuntimeLibrary:
    """ONNX Runtime on one of its targets."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def availability(self) -> Availability:
        remedy = f"pip install 'hart-edge[{EXTRAS[self.target]}]'"
        try:
            onnxruntime = load_library()
        except ImportError as error:
            return Availability(self.target, False, f"onnxruntime is not installed ({error}); {remedy}")
        version, provider = onnxruntime.__version__, PROVIDERS[self.target]
        if provider not in onnxruntime.get_available_providers():
            return Availability(self.target, False, f"onnxruntime {version} has no {provider}; {remedy}")
        return Availability(self.target, True, f"onnxruntime {version}, {provider}")

    def open(self, graph: Path) -> OnnxRuntimeSession:
        found = self.availability()
        if not found.usable:
            raise EngineError(f"{graph.stem}: target {self.target}: {found.detail}")
        return OnnxRuntimeSession(graph, self.target)
