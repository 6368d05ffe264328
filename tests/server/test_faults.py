"""Full queues, clients that leave, workers that die or hang, slow connections, and the end of the server.

Three that only wait are slow: python -m pytest -m slow tests/server/test_faults.py, half a minute.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.server.running import ROOT, Server, children, serving, until

pytestmark = pytest.mark.long

SLOW = {"prompt": "w10"}


def half_open(server: Server, data: bytes) -> socket.socket:
    client = socket.create_connection((server.host, server.port), timeout=30)
    client.sendall(data)
    return client


def request(path: str, body: bytes, *, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def test_a_full_queue_answers_503(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "small", words, queue=2) as server:
        accepted = [server.post("/v1/jobs", SLOW) for _ in range(3)]
        assert [each.status for each in accepted] == [202] * 3
        refused = server.post("/v1/scales", SLOW)
        assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.post("/sdapi/v1/txt2img", SLOW).status == 503
        server.get(f"/v1/jobs/{accepted[-1].json()['id']}/events")
        assert (
            server.post("/v1/images/generations", {"prompt": "w1", "n": 10}).status == 200
        )  # waits for an empty queue


@pytest.mark.parametrize("path", ["/v1/scales", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_a_client_that_leaves_stops_its_work(server: Server, path: str) -> None:
    def cancelled() -> float:
        return server.metric("hart_edge_pictures_total", bundle="tiny-2", outcome="cancelled")

    before = cancelled()
    client = half_open(server, request(path, json.dumps(SLOW).encode()))
    until(lambda: server.metric("hart_edge_drawing") == 1)
    client.close()
    until(lambda: cancelled() == before + 1, 5)
    until(lambda: server.metric("hart_edge_drawing") == 0, 5)


def test_a_worker_that_dies_is_replaced(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "dying", words) as server:
        (first,) = server.workers()
        answer = server.post("/v1/images/generations", {"prompt": "w11"})
        assert answer.status == 500
        message = "the process that drew this picture ended (by SIGKILL); another takes its place, so try again"
        assert answer.json()["error"]["message"] == message
        assert server.post("/v1/images/generations", {"prompt": "w1"}).status == 200
        assert server.workers() != [first] and server.metric("hart_edge_worker_restarts") == 1
        idle = server.workers()[0]
        os.kill(idle, signal.SIGKILL)
        until(lambda: server.workers() not in ([], [idle]))
        assert server.post("/v1/images/generations", {"prompt": "w1"}).status == 200
        assert server.get("/healthz").json() == {"status": "ok", "workers": 1}


def test_a_worker_that_hangs_is_replaced(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "hanging", words, limits={"stall": 1.0}) as server:
        events = server.post("/v1/scales", {"prompt": "w12"}).events()
        assert [name for name, _ in events] == ["job", "scale", "error"]
        assert events[-1][1]["status"] == 500 and "hung and was ended" in events[-1][1]["error"]["message"]
        assert server.post("/v1/images/generations", {"prompt": "w1"}).status == 200


def test_a_bundle_that_cannot_be_opened_ends_the_start(words: Path, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"load": "never_load"}))
    command = [sys.executable, "-m", "tests.server.start", str(tmp_path / "options.json"), str(words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ") and "no library opens it" in done.stderr


def test_slow_heads_and_bodies_time_out(server: Server) -> None:
    """The server's limit for reading is 2 seconds."""
    begin = time.monotonic()
    assert half_open(server, b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ").recv(4096) == b""
    answer = server.raw(request("/v1/scales", b'{"prompt"', length=100))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"within 2 seconds" in answer
    assert 2 <= time.monotonic() - begin < 15


def test_a_client_that_reads_nothing_is_disconnected(server: Server) -> None:
    """It asks for a stream again and again and reads no byte; the limit for writing is 2 seconds."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect((server.host, server.port))
    with client, pytest.raises(OSError):
        client.settimeout(30)
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            client.sendall(ask * 20)
            time.sleep(0.05)
    assert server.get("/healthz").status == 200


@pytest.mark.parametrize("head", [b"x-many: " + b"a" * 20_000, b"\r\n".join(b"x-%d: y" % n for n in range(6000))])
def test_headers_that_are_too_large(server: Server, head: bytes) -> None:
    answer = server.raw(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n" + head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]


def test_bodies_that_are_too_large(server: Server) -> None:
    large = json.dumps({"prompt": "w1", "more": "x" * 2**20}).encode()
    for path in ("/v1/scales", "/v1/images/generations", "/sdapi/v1/txt2img"):
        answer = server.post(path, large)
        assert answer.status == 413 and "at most 1,048,576 bytes" in answer.json()["error"]["message"]
    head = (
        b"POST /v1/scales HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = server.raw(head.replace(b"host: x", b"host: 127.0.0.1") + chunk * 20)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100])
def test_malformed_http(server: Server, data: bytes) -> None:
    answer = server.raw(data + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/healthz").status == 200


def test_sigterm_finishes_accepted_jobs(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "draining", words) as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(server.post("/v1/scales", SLOW))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: server.metric("hart_edge_queue") == 1)
        workers = server.workers()
        assert server.end(signal.SIGTERM) == 0
        for thread in threads:
            thread.join()
        assert [each.events()[-1][0] for each in answers] == ["done", "done"]
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_shutdown_that_takes_too_long_is_cut_short(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "cut", words, limits={"drain": 1.0}) as server:
        thread = threading.Thread(target=server.post, args=("/v1/jobs", {"prompt": "w12"}))
        thread.start()
        until(lambda: server.metric("hart_edge_drawing") == 1)
        begin, workers = time.monotonic(), server.workers()
        assert server.end(signal.SIGINT) == 0
        assert time.monotonic() - begin < 15
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        thread.join()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "twice", words, limits={"drain": 60.0}) as server:
        half_open(server, request("/v1/scales", b'{"prompt": "w12"}'))
        until(lambda: server.metric("hart_edge_drawing") == 1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        begin = time.monotonic()
        server.end(signal.SIGINT)
        assert time.monotonic() - begin < 15


def test_workers_end_with_a_server_that_was_killed(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "killed", words, workers=2) as server:
        workers = server.workers()
        assert len(workers) == 2 and set(workers) <= set(children(server.process.pid))
        server.process.kill()
        until(lambda: not any(alive(pid) for pid in workers), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
