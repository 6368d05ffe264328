"""How a server is run: what `hart-edge serve` was asked for, checked."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hart_edge.errors import InputError

LEAST_KEY = 16  # characters of an API key
MOST_PROMPT = 32_000  # characters, as OpenAI has it; a pipe to an idle worker takes so many at once
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Limits:
    """What a client may take. Times in seconds, sizes in bytes.

    body, headers: of a request; read: for a request to arrive whole, its headers and then its body;
    write: without a byte that the client takes; drain: for pictures that are being drawn when the server is told to
    end; stall: without a sign of a worker that draws, until it is taken for hung; kept: finished pictures that can
    still be fetched, and kept_bytes: of all of them.
    """

    body: int = 2**20
    headers: int = 16 * 2**10
    read: float = 10.0
    write: float = 30.0
    drain: float = 20.0
    stall: float = 300.0
    kept: int = 64
    kept_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class ServerOptions:
    """workers: processes that draw, a picture at a time each; threads: of an operator in each, None to share the cores;
    queue: pictures that may wait; client_queue: of one address, None for no limit of its own; allowed_hosts: names in
    the Host header besides this machine's, "*" for any; allowed_origins: pages of other servers that may call this one.

    Raises InputError for what would serve the network without a key, unless `open` says so.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None
    low_memory: bool = False
    queue: int = 32
    client_queue: int | None = None
    api_key: str | None = field(default=None, repr=False)
    open: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    log_prompts: bool = False
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("--port", self.port, 0, 65535),
            ("--workers", self.workers, 1, 256),
            ("--queue", self.queue, 1, 100_000),
            ("--client-queue", 1 if self.client_queue is None else self.client_queue, 1, 100_000),
        ):
            if not low <= value <= high:
                raise InputError(f"{name}: expected {low} to {high}, found {value}")
        if self.limits.drain < 0:
            raise InputError(f"--drain: expected 0 or more seconds, found {self.limits.drain:g}")
        if not self.limits.stall > 0:
            raise InputError(f"--stall: expected more than 0 seconds, found {self.limits.stall:g}")
        for host in self.allowed_hosts:
            if host != "*" and not HOST_NAME.fullmatch(host) and not is_address(host):
                raise InputError(f"--allow-host: expected a name without port, as in draw.example.org, found {host!r}")
        for origin in self.allowed_origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or not parts.netloc
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise InputError(f"--allow-origin: expected an origin as in https://draw.example.org, found {origin!r}")
        if not is_loopback(self.host) and self.api_key is None and not self.open:
            raise InputError(
                f"--host {self.host}: expected a key for an address that others reach: pass --api-key-file FILE, or "
                "--open to serve whoever comes"
            )

    def threads_each(self) -> int:
        """Threads of a worker."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads if self.threads is not None else max(1, cores // self.workers)


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def read_api_key(file: Path) -> str:
    """The key in a file: its only line. Raises InputError."""
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"--api-key-file {file}: expected a file with a key, found none ({error})") from error
    if not text.isascii() or not text.isprintable() or " " in text or len(text) < LEAST_KEY:
        raise InputError(
            f"--api-key-file {file}: expected one line of at least {LEAST_KEY} letters and digits, found another; "
            "make one: openssl rand -hex 32 > FILE"
        )
    return text
