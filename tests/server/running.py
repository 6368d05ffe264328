"""Servers in processes of their own, and clients of the standard library that show what comes over the wire."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
JSON = {"content-type": "application/json"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    data: bytes

    def json(self) -> Any:
        return json.loads(self.data)

    def events(self) -> list[tuple[str, Any]]:
        """(event, data) of server-sent events."""
        found = []
        for block in self.data.decode().split("\n\n"):
            lines = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
            if lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found


class Server:
    """A running server. log: the file of its standard error."""

    def __init__(self, process: subprocess.Popen[str], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log
        self.host, self.port = urlsplit(address).hostname or "", urlsplit(address).port or 0

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request. body: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {**(JSON if data is not None else {}), **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.call("POST", path, body, headers)

    def raw(self, data: bytes, *, wait: float = SECONDS) -> bytes:
        """Send bytes; return all that comes back until the server closes the connection."""
        with socket.create_connection((self.host, self.port), timeout=wait) as client:
            client.sendall(data)
            found = b""
            while part := client.recv(65536):
                found += part
            return found

    def metric(self, name: str, **labels: str) -> float:
        """A figure of GET /metrics, 0 where it does not exist yet."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        for line in self.get("/metrics").data.decode().splitlines():
            if line.startswith(f"{name}{{{wanted}}} " if wanted else f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def workers(self) -> list[int]:
        """Ids of the processes that draw: the server's children, without those of multiprocessing itself."""
        found = []
        for pid in children(self.process.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"spawn_main" in words:
                found.append(pid)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def serving(
    folder: Path, *bundles: Path, environment: dict[str, str] | None = None, **options: Any
) -> Iterator[Server]:
    """A server of bundles with options of ServerOptions; folder: for its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options))
    command = [sys.executable, "-m", "tests.server.start", str(folder / "options.json"), *map(str, bundles)]
    with started(command, folder / "log", environment) as server:
        yield server


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start a program whose first line of output is its address."""
    clean = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(" ")[0].strip()
            assert address.startswith("http"), log.read_text()
            yield Server(process, address, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def until(condition: Any, seconds: float = SECONDS) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
