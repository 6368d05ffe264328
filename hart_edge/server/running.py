"""A server from its start to its end: a socket, the application, and the signals that end it.

In: options and folders of bundles. Out: a server that answers until SIGINT, SIGTERM or SIGHUP; then it takes no new
connections, draws what was asked for within the limit, and ends its workers. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn

from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import EngineError, InputError
from hart_edge.server.app import make_app
from hart_edge.server.catalogue import open_catalogue
from hart_edge.server.options import ServerOptions
from hart_edge.server.protocol import patient
from hart_edge.server.service import Service
from hart_edge.server.worker import WorkerPlan
from hart_edge.staging import staged_folder

log = logging.getLogger(__name__)

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
KEEP_ALIVE = 15  # seconds that an idle connection stays open


def serve(
    folders: Sequence[Path],
    options: ServerOptions,
    *,
    started: Callable[[str], None],
    plan: Callable[[WorkerPlan], WorkerPlan] = lambda own: own,
) -> None:
    """Serve bundles until a signal ends it. started: called with the address once the page answers.

    plan: what workers open in place of what they would. Raises BundleError, EngineError, InputError.
    """
    with listening(options.host, options.port) as bound, shared_folder(options.workers) as shared:
        catalogue = open_catalogue(folders)
        preparing = (each.name for each in catalogue if REGISTRY[each.manifest.target.name].prepares)
        prepared = {} if shared is None else {name: shared / str(number) for number, name in enumerate(preparing)}
        own = WorkerPlan(catalogue.folders, options.threads_each(), options.low_memory, prepared=prepared)
        service = Service(catalogue, options, plan(own))
        asyncio.run(_serve(service, bound, started))


@contextlib.contextmanager
def shared_folder(workers: int) -> Iterator[Path | None]:
    """A folder, until the server ends, for graphs that several workers map; None where they will not share any."""
    with contextlib.ExitStack() as stack:
        folder = None
        if workers > 1:
            try:
                folder = stack.enter_context(staged_folder(Path(tempfile.gettempdir()) / "hart-edge", ".serving-"))
            except OSError as error:
                log.warning("every worker has its own copy of all weights: no folder for temporary files (%s)", error)
        yield folder


async def _serve(service: Service, bound: socket.socket, started: Callable[[str], None]) -> None:
    limits = service.options.limits
    failure: list[EngineError] = []
    config = uvicorn.Config(
        make_app(service, failure.append),
        http=patient(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(limits.drain)),
        h11_max_incomplete_event_size=2 * limits.headers,
        backlog=256,
    )
    server = QuietServer(config)
    loop = asyncio.get_running_loop()
    signalled = 0

    def end() -> None:
        nonlocal signalled
        signalled += 1
        service.end_by(limits.drain)
        server.should_exit = True
        server.force_exit = signalled > 1
        if signalled > 1:
            service.pool.give_up()

    for number in ENDING:
        loop.add_signal_handler(number, end)
    telling = asyncio.ensure_future(tell_when_started(server, started, address_of(bound)))
    try:
        await server.serve(sockets=[bound])
    except SystemExit as error:  # what uvicorn makes of a lifespan that failed
        if failure:
            raise failure[0] from error
        raise
    finally:
        telling.cancel()
        for number in ENDING:
            loop.remove_signal_handler(number)


class QuietServer(uvicorn.Server):
    """uvicorn's server without its own signal handlers, which raise the signal again at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def tell_when_started(server: uvicorn.Server, started: Callable[[str], None], address: str) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    started(address)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens. Raises InputError for an address that cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--host {host}: expected an address of this machine, found none ({error})") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise InputError(
                f"--host {host} --port {port}: it cannot be had ({error.strerror}); pass another port, or 0 for any "
                "that is free"
            ) from error
        yield bound


def address_of(bound: socket.socket) -> str:
    """The address to open in a browser, on this machine."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
