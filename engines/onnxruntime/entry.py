"""The entries of ONNX Runtime in the registry: the targets cpu and cuda."""

from __future__ import annotations

from pathlib import Path

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import MemoryRules
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.base import Entry, GraphTraits
from hart_edge.engines.onnxruntime.library import OnnxRuntimeLibrary
from hart_edge.runtime.loop import Runner


def open_cpu(bundle: Bundle, *, threads: int | None, low_memory: bool, prepared: Path | None = None) -> Runner:
    """low_memory: the loop unloads graphs, so there is nothing to do here."""
    from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(bundle, threads, prepared=prepared)


def open_cuda(bundle: Bundle, *, threads: int | None, low_memory: bool, prepared: Path | None = None) -> Runner:
    from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner

    return OnnxRuntimeRunner(bundle, threads, target=Target.CUDA)


# Weights are folded and packed while the file's are held, and on a GPU an arena keeps what a run took.
CPU_MEMORY = MemoryRules(
    86_000_000, 5_000, 2.5, 1.0, retained=False, shared=False, measured=True, keeps_first_scales=True, paged=True
)
CUDA_MEMORY = MemoryRules(
    500_000_000, 0, 1.0, 2.0, retained=True, shared=False, measured=False, keeps_first_scales=True
)

ENTRIES = (
    Entry(
        Target.CPU,
        GraphTraits(fp16_tensors=False, int8_activations=True, fused_attention=True, speeds=True),
        CPU_MEMORY,
        open_cpu,
        prepares=True,
        library=OnnxRuntimeLibrary(Target.CPU),
    ),
    Entry(
        Target.CUDA,
        GraphTraits(fp16_tensors=False, int8_activations=False, speeds=True),
        CUDA_MEMORY,
        open_cuda,
        library=OnnxRuntimeLibrary(Target.CUDA),
    ),
)
