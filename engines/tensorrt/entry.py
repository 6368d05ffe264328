"""The entries of TensorRT and TensorRT-RTX in the registry."""

from __future__ import annotations

from pathlib import Path

from hart_edge.bundle.memory import MemoryRules
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.base import Entry, GraphTraits
from hart_edge.engines.tensorrt.builder import TensorRTBuilder
from hart_edge.engines.tensorrt.facts import TENSORRT, TENSORRT_RTX, Capabilities
from hart_edge.runtime.loop import Runner


def open_runner(bundle: Bundle, *, threads: int | None, low_memory: bool, prepared: Path | None = None) -> Runner:
    """threads: engines on a GPU have none."""
    from hart_edge.engines.tensorrt.runner import TensorRTRunner

    return TensorRTRunner(bundle, low_memory=low_memory)


MEMORY = MemoryRules(400_000_000, 0, 1.0, 1.0, retained=True, shared=True, measured=False, keeps_first_scales=False)


def _entry(facts: Capabilities) -> Entry:
    traits = GraphTraits(
        fp16_tensors=True,
        int8_activations=facts.int8_activations,
        no_float32_products=facts.no_float32_products,
        tensorrt_parser=True,
    )
    return Entry(facts.target, traits, MEMORY, open_runner, builder=TensorRTBuilder(facts))


ENTRIES = (_entry(TENSORRT), _entry(TENSORRT_RTX))
