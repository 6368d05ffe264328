"""HART image generation at the edge: a prompt becomes a picture, with numpy and one engine library.

    import hart_edge

    image = hart_edge.generate("a red heart", seed=7)  # a PIL.Image.Image, by the default bundle
    image.save("heart.png")

    with hart_edge.load("bundles/mine") as pipe:  # any bundle, kept loaded
        first, second = pipe.generate(["a red heart", "a green heart"], seed=[1, 2])
        for event in pipe.stream("grinning face"):  # scale by scale
            event.preview().save(f"scale{event.scale}.png")

Every error is a HartEdgeError, which says what was expected, what was found and what to do; InputError is one about a
prompt, a seed or a setting. help(hart_edge.generate) explains every setting. Importing this pulls in neither torch nor
an engine library; names are loaded when first used.

api.py       generate() and load()
errors.py    what hart-edge raises on purpose
units.py     sizes and durations as they are typed and printed
staging.py   hidden folders that become what is written
bundle/      the folder that a build writes and a device runs
runtime/     bundle -> picture, on the device
engines/     the engine libraries
reference/   the model in PyTorch
calib/       INT8: ranges, schemes, and what decides between them
export/      reference -> graphs -> bundle
data/        training sets
evaluation/  figures of checkpoints and bundles
training/    trains the parts of a checkpoint
checks/      golden records, engines on a GPU, speed, arithmetic
batch/       files of prompts, in this process or on Ray
server/      bundles over HTTP, and a page
cli/         the command line, which __main__.py calls
door/        the file behind `python -m export.build` where hart-edge is installed
models/      the model that comes along, as a checkpoint; in the wheel of a device bundles/ has its bundle instead
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hart_edge.errors import (
    BuildError,
    BundleError,
    BusyError,
    CheckpointError,
    EngineError,
    GenerationError,
    HartEdgeError,
    InputError,
    OutOfMemoryError,
    ParityError,
)

if TYPE_CHECKING:
    from hart_edge.api import generate, load
    from hart_edge.runtime.context import Context
    from hart_edge.runtime.pipeline import Event, Pipeline, RandomWeightsWarning, Reconstruction
    from hart_edge.runtime.prompt_tokenizer import PromptTruncatedWarning

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "BundleError",
    "BusyError",
    "CheckpointError",
    "Context",
    "EngineError",
    "Event",
    "GenerationError",
    "HartEdgeError",
    "InputError",
    "OutOfMemoryError",
    "ParityError",
    "Pipeline",
    "PromptTruncatedWarning",
    "RandomWeightsWarning",
    "Reconstruction",
    "generate",
    "load",
]

_HOMES = {
    "generate": "hart_edge.api",
    "load": "hart_edge.api",
    "Context": "hart_edge.runtime.context",
    "Event": "hart_edge.runtime.pipeline",
    "Pipeline": "hart_edge.runtime.pipeline",
    "RandomWeightsWarning": "hart_edge.runtime.pipeline",
    "Reconstruction": "hart_edge.runtime.pipeline",
    "PromptTruncatedWarning": "hart_edge.runtime.prompt_tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hart_edge' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
