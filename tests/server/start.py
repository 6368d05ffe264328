"""A server for tests, as a program: python -m tests.server.start OPTIONS.json FOLDER...

It prints its address. OPTIONS.json: of ServerOptions; `limits` of Limits; `load`: which function of odd_pipeline.py
opens them.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from hart_edge.errors import HartEdgeError
from hart_edge.server.options import Limits, ServerOptions
from hart_edge.server.running import serve
from hart_edge.server.worker import WorkerPlan
from tests.server import odd_pipeline


def main(file: str, *folders: str) -> int:
    given: dict[str, Any] = json.loads(Path(file).read_text())
    load = getattr(odd_pipeline, given.pop("load", "odd_load"))
    options = ServerOptions(**{**given, "port": 0, "limits": Limits(**given.pop("limits", {}))})
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    def plan(own: WorkerPlan) -> WorkerPlan:
        return WorkerPlan(own.folders, 1, load=load)

    try:
        serve([Path(folder) for folder in folders], options, plan=plan, started=lambda told: print(told, flush=True))
    except HartEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("ended", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
