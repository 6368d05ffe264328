"""ONNX Runtime itself: loading the library for a target, and the options with which every graph is opened and run.

Builds open graphs with them too, so that what is measured there holds on the device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import shortage
from hart_edge.engines.base import Availability
from hart_edge.engines.onnxruntime.session import OnnxRuntimeSession, is_out_of_memory
from hart_edge.errors import EngineError

PROVIDERS = {Target.CPU: "CPUExecutionProvider", Target.CUDA: "CUDAExecutionProvider"}
EXTRAS = {Target.CPU: "cpu", Target.CUDA: "gpu"}


def load_library() -> Any:
    """The module onnxruntime. Raises ImportError.

    From 1.29 on, official builds send what they run to their makers, names and hashes of graphs included, unless this
    variable is there when they load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def library_for(target: Target) -> Any:
    """The module onnxruntime with the provider of a target. Raises EngineError with the reason and the remedy."""
    remedy = f"pip install 'hart-edge[{EXTRAS[target]}]'"
    try:
        onnxruntime = load_library()
    except ImportError as error:
        if is_out_of_memory(error):  # "failed to map segment from shared object: Cannot allocate memory"
            raise shortage(str(error)) from error
        raise EngineError(f"onnxruntime is not installed ({error}); {remedy}") from error
    found = onnxruntime.get_available_providers()
    if PROVIDERS[target] not in found:
        raise EngineError(
            f"expected {PROVIDERS[target]} in ONNX Runtime {onnxruntime.__version__}, found {', '.join(found)}; "
            f"{remedy} or build for cpu"
        )
    return onnxruntime


def session_options(onnxruntime: Any, threads: int | None, *, arena: bool = False) -> Any:
    """The library's SessionOptions as every graph of a bundle has them.

    arena: an arena serves a block of the model with what the block before has freed, where malloc would have the system
    zero new pages. It is for one run (run_options), so weights are not in it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    # Idle threads sleep. By default those of one graph's session keep turning while the next graph runs, and take
    # the cores from it: five times slower on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every scale has shapes of its own: plans for a second run of each, and an arena that stays, would keep memory for
    # all of them.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = arena
    if arena:
        # With the library's plan for reuse, a buffer lives until the last tensor that will lie in it: of a picture of
        # 1,024 pixels the decoder held 5.3 GB so, and 3.9 without, in the same time. Its C interface cannot set this.
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def run_options(onnxruntime: Any, *, arena: bool = False) -> Any:
    """The library's RunOptions as every graph of a bundle runs with them: an arena is given back when a run ends."""
    options = onnxruntime.RunOptions()
    if arena:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


class OnnxRuntimeLibrary:
    """ONNX Runtime on one of its targets, as builds use it: to check and calibrate graphs."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def availability(self) -> Availability:
        try:
            onnxruntime = library_for(self.target)
        except EngineError as error:
            return Availability(self.target, False, str(error))
        return Availability(self.target, True, f"onnxruntime {onnxruntime.__version__}, {PROVIDERS[self.target]}")

    def open(self, graph: Path, *, in_order: bool = False) -> OnnxRuntimeSession:
        try:
            onnxruntime = library_for(self.target)
        except EngineError as error:
            raise EngineError(f"{graph.stem}: target {self.target}: {error}") from error
        options = session_options(onnxruntime, None)
        if in_order:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # among equals by place in the file
        return OnnxRuntimeSession(
            onnxruntime, graph.stem, graph, PROVIDERS[self.target], options, run_options(onnxruntime)
        )
