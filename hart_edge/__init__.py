"""HART image generation at the edge: `hart_edge.generate("a red heart")`.

Importing this pulls in neither torch nor an engine library; names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.errors import (
    BuildError,
    BundleError,
    CheckpointError,
    EngineError,
    GenerationError,
    HartEdgeError,
    InputError,
    ParityError,
)

if TYPE_CHECKING:
    from hart_edge.api import generate, load
    from runtime.pipeline import Context, Event, Pipeline
    from runtime.text import PromptTruncatedWarning

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "BundleError",
    "CheckpointError",
    "Context",
    "EngineError",
    "Event",
    "GenerationError",
    "HartEdgeError",
    "InputError",
    "ParityError",
    "Pipeline",
    "PromptTruncatedWarning",
    "generate",
    "load",
]

_HOMES = {
    "generate": "hart_edge.api",
    "load": "hart_edge.api",
    "Context": "runtime.pipeline",
    "Event": "runtime.pipeline",
    "Pipeline": "runtime.pipeline",
    "PromptTruncatedWarning": "runtime.text",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hart_edge' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
