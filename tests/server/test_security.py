"""Addresses, keys, hosts, origins, and what an answer, a log and a connection give away."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hart_edge.errors import InputError
from hart_edge.server.guard import host_of, key_in
from hart_edge.server.options import Limits, ServerOptions, read_api_key
from tests.server.odd_pipeline import SECRET
from tests.server.running import ROOT, Server, serving, started

pytestmark = pytest.mark.long

KEY = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def locked(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key, a name and an origin of its own."""
    allowed = {"allowed_hosts": ["draw.example.org"], "allowed_origins": ["https://pages.example.org"]}
    with serving(tmp_path_factory.mktemp("locked"), words, api_key=KEY, **allowed) as it:
        yield it


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "draw.example.org"])
def test_an_address_that_others_reach_needs_a_key_or_says_open(host: str) -> None:
    with pytest.raises(InputError, match="pass --api-key-file FILE, or --open to serve whoever comes"):
        ServerOptions(host=host)
    assert ServerOptions(host=host, open=True).api_key is None and ServerOptions(host=host, api_key=KEY)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert ServerOptions(host=host).api_key is None


def test_a_key_is_never_printed() -> None:
    assert KEY not in repr(ServerOptions(api_key=KEY))


@pytest.mark.parametrize(
    "text", ["", "short", "two words and some more", "a" * 15, "key\nand another line of it", "h\u00e9" * 20]
)
def test_files_without_a_valid_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match="expected one line of at least 16 letters and digits"):
        read_api_key(tmp_path / "key")
    with pytest.raises(InputError, match="expected a file with a key, found none"):
        read_api_key(tmp_path / "nowhere")


def test_a_file_with_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_api_key(tmp_path / "key") == KEY


@pytest.mark.parametrize(
    "given",
    [
        {"port": 65536},
        {"workers": 0},
        {"queue": 0},
        {"client_queue": 0},
        {"limits": Limits(drain=-1)},
        {"limits": Limits(stall=0)},
    ],
)
def test_options_out_of_range(given: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        ServerOptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "origin", ["*", "pages.example.org", "https://pages.example.org/", "https://", "null", "ftp://x"]
)
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(InputError, match="--allow-origin: expected an origin as in"):
        ServerOptions(allowed_origins=(origin,))
    with pytest.raises(InputError, match="--allow-host: expected a name without port"):
        ServerOptions(allowed_hosts=("draw.example.org:80",))


def test_every_route_but_the_page_needs_the_key(locked: Server) -> None:
    assert (
        locked.get("/").status == 200 and locked.get("/page.js").status == 200 and locked.get("/healthz").status == 200
    )
    document = locked.call("GET", "/openapi.json", headers=bearer(KEY)).json()
    for path, operations in document["paths"].items():
        for method in operations:
            if path == "/healthz":
                continue
            for headers in ({}, bearer("0" * 20), bearer(KEY[:-1]), bearer(""), {"authorization": KEY}):
                answer = locked.call(method.upper(), path, headers=headers)
                assert answer.status == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"


def test_the_key_opens(locked: Server) -> None:
    assert locked.get("/v1/models", **bearer(KEY)).status == 200
    basic = base64.b64encode(f"user:{KEY}".encode()).decode()
    assert locked.get("/sdapi/v1/options", authorization=f"Basic {basic}").status == 200  # as A1111's clients send it
    assert locked.post("/v1/images/generations", {"prompt": "w1"}, **bearer(KEY)).status == 200


def test_keys_in_headers() -> None:
    assert key_in("Bearer abc") == "abc" and key_in("bearer  abc ") == "abc" and key_in("abc") == ""
    assert key_in("Basic !!") == "" and key_in(f"Basic {base64.b64encode(b'u:p:q').decode()}") == "p:q"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("192.0.2.7", 200),  # an address is no name that somebody could point here
        ("draw.example.org", 200),
        ("draw.example.org.", 200),
        ("evil.example.org", 403),
        ("draw.example.org.evil.net", 403),
        ("localhost.evil.net", 403),
        ("127.0.0.1.evil.net", 403),
        ("user@127.0.0.1", 403),
        ("127.0.0.1:x", 403),
        ("", 403),
    ],
)
def test_hosts(locked: Server, host: str, status: int) -> None:
    """DNS rebinding: a page of another site asks by its own name, which it has pointed to this machine."""
    answer = locked.raw(f"GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]


def test_no_host_or_two(locked: Server) -> None:
    assert locked.raw(b"GET /healthz HTTP/1.0\r\n\r\n").split(b" ")[1] in (b"400", b"403")
    two = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    assert locked.raw(two).split(b" ")[1] in (b"400", b"403")


def test_host_names() -> None:
    assert host_of("[::1]:80") == "::1" and host_of("a.b:1") == "a.b"
    assert [host_of(word) for word in ("a/b", "a?b", "a#b", ":80", "[::1", "a:99999", "a b@c")] == [None] * 7


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://127.0.0.1:1", "http://localhost", "x"])
def test_pages_of_other_sites_are_refused(server: Server, origin: str) -> None:
    for path in ("/v1/scales", "/sdapi/v1/interrupt", "/v1/images/generations"):
        answer = server.post(path, {"prompt": "w1"}, origin=origin)
        assert answer.status == 403 and "access-control-allow-origin" not in answer.headers
    assert server.get("/v1/capabilities", origin=origin).status == 403
    assert server.call("OPTIONS", "/v1/scales", headers={"origin": origin}).status == 403


def test_cross_site_requests_without_an_origin_are_refused(server: Server) -> None:
    site = {"sec-fetch-site": "cross-site"}
    assert server.get("/v1/capabilities", **site, **{"sec-fetch-mode": "no-cors"}).status == 403
    assert server.get("/", **site, **{"sec-fetch-mode": "navigate"}).status == 200  # a link to the page
    assert server.get("/v1/capabilities", **{"sec-fetch-site": "same-origin"}).status == 200


def test_the_servers_own_page_may_ask(server: Server) -> None:
    assert server.post("/v1/scales", {"prompt": "w1"}, origin=server.address).status == 200


def test_an_origin_that_was_named(locked: Server) -> None:
    theirs = {"origin": "https://pages.example.org"}
    asked = locked.call("OPTIONS", "/v1/scales", headers={**theirs, "access-control-request-method": "POST"})
    assert asked.status == 204 and asked.headers["access-control-allow-origin"] == theirs["origin"]
    assert "authorization" in asked.headers["access-control-allow-headers"]
    answer = locked.call("GET", "/v1/models", headers={**theirs, **bearer(KEY)})
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == theirs["origin"]
    assert "Origin" in answer.headers["vary"]
    assert locked.get("/v1/models", **theirs).status == 401  # the key is asked for all the same


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_of_another_site_could_send_is_refused(server: Server, kind: str) -> None:
    answer = server.call("POST", "/v1/scales", b'{"prompt": "w1"}', {"content-type": kind})
    assert answer.status == 415


@pytest.mark.parametrize("path", ["/", "/page.js", "/v1/models", "/nothing", "/healthz"])
def test_headers_of_every_answer(server: Server, path: str) -> None:
    headers = server.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers and "access-control-allow-origin" not in headers


@pytest.mark.parametrize("word", ["w13", "w14", "w15", "w16"])
def test_no_path_or_trace_in_an_answer(server: Server, word: str) -> None:
    for path in ("/v1/scales", "/v1/images/generations", "/sdapi/v1/txt2img"):
        text = server.post(path, {"prompt": word}).data.decode()
        assert "secret" not in text and "/" not in re.sub(r"[A-Za-z0-9+/=]{80,}|image/png", "", text), text
        assert "Traceback" not in text and "File" not in text
    assert word == "w16" or SECRET in server.log.read_text()  # whoever runs it is told


def test_prompts_are_in_no_log(words: Path, tmp_path: Path) -> None:
    for folder, wanted in (("quiet", False), ("telling", True)):
        with serving(tmp_path / folder, words, log_prompts=wanted) as server:
            server.post("/v1/scales", {"prompt": "w21 w22"})
            server.post("/v1/images/generations", {"prompt": "w21 w22", "n": 0})
            server.get("/v1/models?prompt=w21")
            server.end()
        assert ("w21" in (tmp_path / folder / "log").read_text()) is wanted


GUARD = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        told = repr(arguments[1:] if event.startswith("socket.connect") else arguments)
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{event} {told}\\n")

sys.addaudithook(watch)
"""


def test_no_connection_goes_out(words: Path, tmp_path: Path) -> None:
    """Every process of the server reports the connections that it opens and the names that it looks up."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    seen = tmp_path / "connections"
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "CONNECTIONS": str(seen)}
    with serving(tmp_path / "watched", words, environment=environment) as server:
        for path in ("/v1/scales", "/v1/images/generations", "/sdapi/v1/txt2img"):
            assert server.post(path, {"prompt": "w1"}).status == 200
        assert server.get("/").status == 200
    lines = seen.read_text().splitlines() if seen.exists() else []
    assert [line for line in lines if "socket.getaddrinfo ('127.0.0.1'" not in line] == []  # the address to listen at


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_it_draws_without_any_network(words: Path, tmp_path: Path) -> None:
    """In a network namespace of its own there is nothing but a loopback device."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no namespaces to its users")
    (tmp_path / "options.json").write_text(json.dumps({}))
    inside = f"{sys.executable} -m tests.server.start {tmp_path}/options.json {words} & server=$!\n" + PROBE
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "OUT": str(tmp_path / "address")}
    command = ["unshare", "-rn", "bash", "-c", inside]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "drawn 200" in done.stdout, done.stdout + done.stderr


PROBE = r"""
ip link set lo up 2>/dev/null || $PYTHON -c '
import fcntl, socket, struct
s = socket.socket(); name = b"lo".ljust(16, b"\0")
fcntl.ioctl(s, 0x8914, name + struct.pack("h", 0x49) + bytes(14))'
$PYTHON - <<'END'
import json, re, subprocess, time, urllib.request, os
for _ in range(600):
    found = subprocess.run(["bash", "-c", "cat /proc/net/tcp | grep ' 0A '"], capture_output=True, text=True).stdout
    ports = [int(line.split()[1].split(":")[1], 16) for line in found.splitlines()]
    if ports:
        break
    time.sleep(0.1)
time.sleep(0.2)
ask = urllib.request.Request(f"http://127.0.0.1:{ports[0]}/v1/images/generations", b'{"prompt": "w1"}',
                             {"content-type": "application/json"})
print("drawn", urllib.request.urlopen(ask, timeout=60).status)
END
status=$?; kill $server; wait $server; exit $status
"""


def test_the_command_refuses_an_open_address(words: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hart_edge", "serve", str(words), "--host", "0.0.0.0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--host 0.0.0.0: expected a key for an address that others reach" in done.stderr
    missing = subprocess.run(command[:4], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert missing.returncode == 1 and "`python -m export.build --precision int8`" in missing.stderr


def test_the_command_with_a_key_for_everybody(words: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    key = ["--api-key-file", str(tmp_path / "key")]
    command = [sys.executable, "-m", "hart_edge", "serve", str(words), "--host", "0.0.0.0", "--port", "0", *key]
    with started(command, tmp_path / "log") as server:
        assert server.address.startswith("http://127.0.0.1:")
        assert server.get("/v1/models").status == 401 and server.get("/v1/models", **bearer(KEY)).status == 200
        assert server.end() == 0 and server.process.stdout is not None and server.process.stdout.read() == "ended\n"
