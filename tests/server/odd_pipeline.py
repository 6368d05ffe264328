"""A pipeline with which a prompt can make a worker slow, hung, dead or short of memory: the load() of servers in tests.

Words of the tiny bundle: w10 makes every scale slow, w11 kills its process after the first scale, w12 hangs
there, w13 to w16 raise errors that name files.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hart_edge.engines.loading import load
from hart_edge.errors import BundleError, EngineError, GenerationError, OutOfMemoryError
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import Event, Pipeline

SLOW = 0.25  # seconds of a scale
SECRET = "/srv/secret/graphs/decoder.onnx"
ERRORS = {
    "w13": OutOfMemoryError(f"{SECRET}: not enough memory"),
    "w14": EngineError(f"{SECRET}: node 7 failed"),
    "w15": BundleError(f"{SECRET}: was altered"),
    "w16": GenerationError("the decoder produced NaN"),
}


class OddPipeline(Pipeline):
    def stream(self, prompt: str | Context, **more: Any) -> Iterator[Event]:
        return self._odd(str(prompt).split(), super().stream(prompt, **more))

    def _odd(self, words: list[str], events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if "w10" in words:
                time.sleep(SLOW)
            yield event
            if "w11" in words:
                os.kill(os.getpid(), signal.SIGKILL)
            if "w12" in words:
                time.sleep(3600)
            for word in words:
                if word in ERRORS:
                    raise ERRORS[word]


def odd_load(folder: Path, **more: Any) -> Pipeline:
    found = load(folder, **more)
    return OddPipeline(found.bundle, found.runner)


def never_load(folder: Path, **_: Any) -> Pipeline:
    raise EngineError(f"{folder}: no library opens it")
