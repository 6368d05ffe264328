"""Random bodies over all routes: never a 500, never a hang. 10,000 of them with -m slow, 400 otherwise."""

from __future__ import annotations

import http.client
import json
import random
import string
from typing import Any

import pytest

from hart_edge.bundle.settings import SETTINGS
from tests.server.running import Server

pytestmark = pytest.mark.long

FIELDS = (
    *("prompt", "model", "n", "size", "response_format", "output_format", "output_compression", "stream", "bundle"),
    *("partial_images", "background", "quality", "style", "moderation", "user", "seed", "previews", "format"),
    *("batch_size", "n_iter", "width", "height", "steps", "negative_prompt", "sampler_name", "override_settings"),
    *("sd_model_checkpoint", "live_previews_enable", "send_images", *SETTINGS),
)
EDGES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 10, 11, 2**31, 2**63, 2**64 - 1, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(
        "",
        " ",
        "w1",
        "w1 w2",
        "\0",
        "\ud800",
        "\u202e",
        "a" * 40_000,
        "32x32",
        "png",
        "webp",
        "auto",
        "url",
        "b64_json",
    ),
    *(None, True, False, [], {}, [[]], ["w1"], {"a": {"b": []}}, [None] * 5),
)
ODD = (
    *(b"", b"{", b"null", b"[]", b'"w1"', b"\xff\xfe", b"{}" * 3, b"NaN", b'{"prompt": NaN}', b'{"seed": 1e999}'),
    *(b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt": "w1", "seed": ' + b"9" * 5000 + b"}", b'{"prompt": "\\ud800"}'),
)


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8)
    if kind < 5 or depth > 3:
        return rng.choice(EDGES)
    if kind == 5:
        return "".join(rng.choices(string.printable, k=rng.randrange(40)))
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(FIELDS): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def body(rng: random.Random) -> bytes:
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(ODD)
    if kind == 1:
        return rng.randbytes(rng.randrange(200))
    given = {rng.choice(FIELDS): value(rng) for _ in range(rng.randrange(6))}
    if kind > 4:
        given["prompt"] = "w1"
    text = json.dumps(given).encode()
    if kind == 2:  # a byte of it is another
        at = rng.randrange(len(text))
        text = text[:at] + rng.randbytes(1) + text[at + 1 :]
    return text


def fuzz(server: Server, count: int, seed: int) -> dict[int, int]:
    """Send random bodies; return how often each status came back."""
    document = server.get("/openapi.json").json()
    routes = [(method.upper(), path) for path, each in document["paths"].items() for method in each]
    routes = [*routes, *(route for route in routes if route[0] == "POST")] * 2
    routes += [
        ("POST", "/"),
        ("PUT", "/v1/scales"),
        ("GET", "/%00"),
        ("GET", "/../../etc/passwd"),
        ("PATCH", "/v1/jobs/x"),
    ]
    rng, found = random.Random(seed), dict[int, int]()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    for number in range(count):
        method, path = rng.choice(routes)
        path = path.replace("{id}", "x%2Fy").replace("{name}", "tiny-2")
        sent = body(rng)
        headers = {
            "content-type": "application/json" if rng.random() < 0.97 else rng.choice(("", "text/xml", "a" * 99))
        }
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            answer.read()
        except (http.client.RemoteDisconnected, ConnectionError):
            connection.close()  # the server ends a connection where it refuses a whole request
            connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
            continue
        assert answer.status < 500, (number, method, path, sent[:300], answer.status)
        found[answer.status] = found.get(answer.status, 0) + 1
    connection.close()
    return found


def test_some_random_bodies(server: Server) -> None:
    found = fuzz(server, 400, 1)
    assert found[400] > 50 and found[200] > 50 and sum(found.values()) > 390
    assert server.get("/healthz").json()["workers"] == 2


@pytest.mark.slow
def test_ten_thousand_random_bodies(server: Server) -> None:
    """Three minutes on two cores: python -m pytest -m slow tests/server/test_fuzz.py"""
    found = fuzz(server, 10_000, 2)
    print(found)
    assert sum(found.values()) > 9_900 and server.get("/healthz").json()["workers"] == 2
    assert "Traceback" not in server.log.read_text()
