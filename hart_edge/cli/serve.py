"""`hart-edge serve`: bundles in, a server out that answers until it is told to end."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from hart_edge.api import find_bundle
from hart_edge.cli.command import Commands, needs_extra, new_command


def add(commands: Commands) -> None:
    p = new_command(commands, "serve", "Serve bundles over HTTP: a page, and APIs that clients know.", run)
    p.add_argument(
        "bundles", type=Path, nargs="*", metavar="BUNDLE", help="bundle folders (default: bundles/hart-emoji-int8)"
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    p.add_argument("--port", type=int, default=8000, metavar="N", help="port, 0 for any that is free (default: 8000)")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="pictures drawn at a time (default: 1)")
    p.add_argument("--threads", type=int, metavar="N", help="threads of each worker (default: the cores, shared)")
    p.add_argument("--low-memory", action="store_true", help="unload every graph after its last step: slower, smaller")
    p.add_argument("--queue", type=int, default=32, metavar="N", help="pictures that may wait (default: 32)")
    p.add_argument("--client-queue", type=int, metavar="N", help="pictures of one address at a time (default: any)")
    p.add_argument("--drain", type=float, default=20, metavar="SECONDS", help="time to finish at the end (default: 20)")
    p.add_argument(
        "--stall",
        type=float,
        default=300,
        metavar="SECONDS",
        help="time without a finished scale after which a worker is taken for hung (default: 300)",
    )
    p.add_argument("--api-key-file", type=Path, metavar="FILE", help="whoever asks needs the key in this file")
    p.add_argument("--open", action="store_true", help="serve an address that others reach without a key")
    several: dict[str, Any] = {"action": "append", "default": []}
    p.add_argument("--allow-host", **several, metavar="NAME", help="a name of the server; may be repeated")
    p.add_argument(
        "--allow-origin", **several, metavar="URL", help="a page elsewhere that may call the server; may be repeated"
    )
    p.add_argument("--log-prompts", action="store_true", help="write prompts into the log")
    p.add_argument("--log-level", choices=("info", "warning", "error"), default="warning", help="default: warning")
    p.add_argument("--json", action="store_true", help="print the address and the bundles as one JSON object")


def run(a: argparse.Namespace) -> int:
    with needs_extra("serving", "serve"):
        from hart_edge.server.options import Limits, ServerOptions, read_api_key
        from hart_edge.server.running import serve
    folders = a.bundles or [find_bundle(None)]
    options = ServerOptions(
        host=a.host,
        port=a.port,
        workers=a.workers,
        threads=a.threads,
        low_memory=a.low_memory,
        queue=a.queue,
        client_queue=a.client_queue,
        api_key=None if a.api_key_file is None else read_api_key(a.api_key_file),
        open=a.open,
        allowed_hosts=tuple(a.allow_host),
        allowed_origins=tuple(a.allow_origin),
        log_prompts=a.log_prompts,
        limits=Limits(drain=a.drain, stall=a.stall),
    )
    level = "INFO" if a.log_prompts else a.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def started(address: str) -> None:
        names = [str(folder) for folder in folders]
        if a.json:
            print(json.dumps({"address": address, "bundles": names}), flush=True)
        else:
            print(f"{address} serves {', '.join(names)}; Ctrl-C ends it", flush=True)

    serve(folders, options, started=started)
    if not a.json:
        print("ended", flush=True)
    return 0
