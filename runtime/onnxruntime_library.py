"""ONNX Runtime itself: loading the library, and the options with which every graph is opened and run.

Builds open graphs with them too, so that what is measured there holds on the device.
"""

from __future__ import annotations

import os
from typing import Any

from runtime.manifest import Target

PROVIDERS = {Target.CPU: "CPUExecutionProvider", Target.CUDA: "CUDAExecutionProvider"}


def load_library() -> Any:
    """The module onnxruntime. Raises ImportError.

    From 1.29 on, official builds send what they run to their makers, names and hashes of graphs included, unless this
    variable is there when they load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def session_options(onnxruntime: Any, threads: int | None) -> Any:
    """The library's SessionOptions as every graph of a bundle has them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    # Idle threads sleep. By default those of one graph's session keep turning while the next graph runs, and take
    # the cores from it: five times slower on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena serves a block of the model with what the block before has freed, where malloc would have the system zero
    # new pages. It is for one run (run_options), so weights are not in it, and nothing is planned for a second one.
    options.enable_cpu_mem_arena = True
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def run_options(onnxruntime: Any) -> Any:
    """The library's RunOptions as every graph of a bundle runs with them.

    The arena goes back when a run ends: every scale has shapes of its own, and it would keep memory for all of them.
    """
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
