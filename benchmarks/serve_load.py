"""A server under load: python -m benchmarks.serve_load BUNDLE [--workers N] [--seconds 60] [--requests 1000]

Clients ask for a picture each, one after the other, as fast as they get it: 1, 4 and 16 of them. Then memory: the
resident and the proportional size of all processes of the server, before and after so many requests. Prints a table in
Markdown.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from hart_edge.bundle.card import describe_machine

CLIENTS = (1, 4, 16)
PROMPT = "woman astronaut, 3d"


class Load:
    """Clients of a server, and how long each of their pictures took."""

    def __init__(self, port: int, prompt: str = PROMPT) -> None:
        self.prompt = prompt
        self.port, self.seconds, self.refused, self._lock = port, list[float](), 0, threading.Lock()

    def ask(self, connection: http.client.HTTPConnection, seed: int) -> int:
        body = json.dumps({"prompt": self.prompt, "seed": seed})
        began = time.monotonic()
        connection.request("POST", "/v1/images/generations", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        with self._lock:
            if answer.status == 200:
                self.seconds.append(time.monotonic() - began)
            else:
                self.refused += 1
        return answer.status

    def client(self, number: int, end: float, most: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        seed = number * 1_000_000
        while time.monotonic() < end and most > 0:
            seed, most = seed + 1, most - 1
            if self.ask(connection, seed) != 200:
                time.sleep(0.1)
        connection.close()

    def run(self, clients: int, seconds: float, requests: int = 10**9) -> float:
        """How long it took."""
        began = time.monotonic()
        each = -(-requests // clients)
        threads = [threading.Thread(target=self.client, args=(n, began + seconds, each)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - began


def memory(pid: int) -> tuple[float, float]:
    """Resident and proportional MiB of a process and its children."""
    resident = shared = 0.0
    for each in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        found = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        sizes = {line.split()[0]: int(line.split()[1]) for line in found[1:]}
        resident, shared = resident + sizes["Rss:"] / 1024, shared + sizes["Pss:"] / 1024
    return resident, shared


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("bundle", type=Path)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--requests", type=int, default=1000)
    a = p.parse_args()
    command = [sys.executable, "-m", "hart_edge", "serve", str(a.bundle), "--port", "0", "--workers", str(a.workers)]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(json.loads(server.stdout.readline())["address"].rpartition(":")[2])
            print(f"{a.bundle.name}, {a.workers} workers, {describe_machine()}\n")
            Load(port).run(1, 600, 20)  # warm
            print("| clients | pictures a second | median, s | 95 %, s | refused |\n|--:|--:|--:|--:|--:|")
            for clients in CLIENTS:
                load = Load(port)
                seconds = load.run(clients, a.seconds)
                rate, last = len(load.seconds) / seconds, statistics.quantiles(load.seconds, n=20)[-1]
                median = statistics.median(load.seconds)
                print(f"| {clients} | {rate:.2f} | {median:.2f} | {last:.2f} | {load.refused} |", flush=True)
            before = memory(server.pid)
            load = Load(port)
            load.run(4, 3600, a.requests)
            after = memory(server.pid)
            print(f"\n{len(load.seconds)} requests: resident {before[0]:.0f} to {after[0]:.0f} MiB, proportional "
                  f"{before[1]:.0f} to {after[1]:.0f} MiB")  # fmt: skip
        finally:
            server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
