"""What a server needs while it is used: memory that does not grow, and what workers share.

A minute: python -m pytest -m slow tests/server/test_load.py. Figures of speed: python -m benchmarks.serve_load BUNDLE.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from benchmarks.serve_load import Load, memory
from tests.server.running import serving

pytestmark = pytest.mark.long

GROWTH = 8.0  # MiB of all processes together


@pytest.mark.slow
def test_a_thousand_requests_leave_memory_where_it_was(words: Path, tmp_path: Path) -> None:
    """The first requests fill what is kept: the last pictures, and the allocators' pools."""
    with serving(tmp_path / "used", words, workers=2, queue=100) as server:
        load = Load(server.port, "w1 w2")
        load.run(4, 300, 400)
        before = memory(server.process.pid)
        load.run(4, 300, 1000)
        after = memory(server.process.pid)
        print(f"resident {before[0]:.1f} to {after[0]:.1f} MiB, proportional {before[1]:.1f} to {after[1]:.1f} MiB")
        assert len(load.seconds) >= 1400 and load.refused == 0
        assert after[0] < before[0] + GROWTH


@pytest.mark.slow
def test_clients_that_leave_leave_nothing(words: Path, tmp_path: Path) -> None:
    """Of 200 streams that nobody reads to the end nothing is left but the server's last pictures."""
    head = "POST /v1/scales HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n"
    with serving(tmp_path / "left", words, queue=1000) as server:

        def leave(count: int) -> None:
            for _ in range(count):
                with socket.create_connection((server.host, server.port)) as client:
                    client.sendall(head.encode() + b'{"prompt": "w1"}')
                    client.recv(100)
            assert server.post("/v1/scales", {"prompt": "w1"}).events()[-1][0] == "done"

        leave(100)
        before = memory(server.process.pid)[0]
        leave(200)
        assert memory(server.process.pid)[0] < before + GROWTH
        assert server.metric("hart_edge_queue") == 0 and server.metric("hart_edge_drawing") == 0


def test_constants_are_mapped_and_shared(int8_bundle: Path, tmp_path: Path) -> None:
    """Two workers of the shipped model have the pages of its constants in common: the file is mapped."""
    with serving(tmp_path / "two", int8_bundle, workers=2, load="load") as server:
        for seed in range(2):
            server.post("/v1/images/generations", {"prompt": "a red heart", "seed": seed})
        for pid in server.workers():
            assert "constants.bin" in Path(f"/proc/{pid}/maps").read_text()
