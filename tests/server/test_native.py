"""The API that shows the method: events of every scale, jobs with places, what can be asked for, and its document."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hart_edge
from hart_edge.runtime.picture_metadata import read_metadata
from hart_edge.server.app import OPERATIONS
from tests.server.running import Server, serving, until

pytestmark = pytest.mark.long

PROMPT = "w1 w2"


def pixels(data: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(data))).tobytes()


@pytest.mark.parametrize("seed", ["auto", "", "-1", "7\n", "\u0663", "9" * 20, "1" * 21, 1.5, True, [7], 2**64])
def test_seeds_that_are_none(server: Server, seed: Any) -> None:
    answer = server.post("/v1/jobs", {"prompt": PROMPT, "seed": seed})
    assert answer.status == 400 and answer.json()["error"]["param"] == "seed"
    assert answer.json()["error"]["message"].startswith("seed: expected ")


@pytest.mark.parametrize("path", ["/v1/scales", "/v1/jobs"])
@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        ("sede", "did you mean seed?"),
        ("cfgscale", "did you mean cfg_scale?"),
        ("Prompt", "did you mean prompt?"),
        ("steps", "leave it out"),
        ("\ud800" * 100, "leave it out"),
    ],
)
def test_a_field_that_is_none_of_ours(server: Server, path: str, field: str, remedy: str) -> None:
    """Whatever its value is, and before anything else is said of the body."""
    known = "prompt, bundle, seed, previews, format, cfg_scale, top_k, top_p, smooth, speed"
    for body in ({"prompt": PROMPT, field: 1}, {field: None}):
        answer = server.post(path, body)
        assert answer.status == 400 and answer.json()["error"] == {
            "message": f"{field[:60]}: expected one of {known}, found another field; {remedy}",
            "type": "invalid_request_error",
            "param": field[:60],
            "code": None,
        }


def test_every_scale_is_an_event(server: Server, words: Path) -> None:
    answer = server.post("/v1/scales", {"prompt": PROMPT, "seed": "18446744073709551615", "top_k": 3})
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
    (kind, job), first, second, (ending, done) = answer.events()
    assert (kind, ending) == ("job", "done") and [first[0], second[0]] == ["scale", "scale"]
    assert job["seed"] == 2**64 - 1 and job["bundle"] == "tiny-2" and job["prompt"] == PROMPT
    assert job["settings"] == {"cfg_scale": 4.5, "top_k": 3, "top_p": 1.0, "smooth": False, "speed": "exact"}
    facts = [{key: each[key] for key in ("scale", "scales", "side", "tokens")} for _, each in (first, second)]
    assert facts == [
        {"scale": 0, "scales": 2, "side": 1, "tokens": 1},
        {"scale": 1, "scales": 2, "side": 2, "tokens": 4},
    ]
    assert 0 < first[1]["seconds"] < second[1]["seconds"] <= done["seconds"]
    expected = list(hart_edge.load(words).stream(PROMPT, seed=2**64 - 1, top_k=3))
    assert [pixels(each["preview"]) for _, each in (first, second)] == [each.preview().tobytes() for each in expected]
    assert pixels(done["image"]) == expected[-1].preview().tobytes() and done["width"] == 32


def test_the_picture_says_how_it_was_drawn(server: Server, words: Path, tmp_path: Path) -> None:
    done = server.post("/v1/scales", {"prompt": PROMPT, "seed": 3, "previews": False}).events()[-1][1]
    (tmp_path / "done.png").write_bytes(base64.b64decode(done["image"]))
    found = read_metadata(tmp_path / "done.png")
    assert (found.prompt, found.seed, found.bundle) == (PROMPT, 3, "tiny-2")
    assert found.settings == {"cfg_scale": 4.5, "top_k": [6, 3], "top_p": 1.0, "smooth": False, "speed": "exact"}
    assert found.bundle_sha256 == hart_edge.load(words).bundle.sha256


def test_previews_can_be_left_out(server: Server) -> None:
    events = server.post("/v1/scales", {"prompt": PROMPT, "previews": False, "format": "webp"}).events()
    assert [each["preview"] for name, each in events if name == "scale"] == [None, None]
    assert Image.open(io.BytesIO(base64.b64decode(events[-1][1]["image"]))).format == "WEBP"


def test_a_truncated_prompt_is_reported(server: Server) -> None:
    job = server.post("/v1/scales", {"prompt": "w1 w2 w3 w4 w5"}).events()[0][1]
    assert job["warnings"] == ["the prompt has 5 tokens, the model reads 4: the first 4 are kept"]


def test_a_job_has_an_address_events_and_a_picture(server: Server) -> None:
    answer = server.post("/v1/jobs", {"prompt": f"w10 {PROMPT}", "seed": 4})
    job = answer.json()
    assert answer.status == 202 and answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] in ("queued", "drawing") and job["seed"] == 4 and job["image"] is None
    early = server.get(f"/v1/jobs/{job['id']}/image")
    assert early.status == 409 and "expected one that is done" in early.json()["error"]["message"]
    events = server.get(f"/v1/jobs/{job['id']}/events").events()
    assert [name for name, _ in events] == ["job", "scale", "scale", "done"]
    found = server.get(f"/v1/jobs/{job['id']}").json()
    assert found["state"] == "done" and found["scales_done"] == 2 and found["seconds"] >= 0.5
    image = server.get(found["image"])
    assert image.headers["content-type"] == "image/png" and image.data == base64.b64decode(events[-1][1]["image"])
    assert server.get(f"/v1/jobs/{job['id']}/events").events() == events  # the same to whoever comes later


def test_places_in_the_queue_and_cancelling(words: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "one", words) as server:
        jobs = [server.post("/v1/jobs", {"prompt": "w10"}).json() for _ in range(4)]
        assert [job["position"] for job in jobs] == [None, 0, 1, 2]
        cancelled = server.call("DELETE", f"/v1/jobs/{jobs[1]['id']}").json()
        assert cancelled["state"] == "cancelled"
        events = server.get(f"/v1/jobs/{jobs[3]['id']}/events").events()
        places = [each["position"] for name, each in events if name == "queue"]
        assert places[0] == 2 and places == sorted(places, reverse=True) and events[-1][0] == "done"
        assert server.get(f"/v1/jobs/{jobs[1]['id']}/events").events()[-1] == ("cancelled", {})
        refused = server.get(f"/v1/jobs/{jobs[1]['id']}/image")
        assert refused.status == 409 and refused.json()["error"]["message"] == "the picture was cancelled"
        again = server.call("DELETE", f"/v1/jobs/{jobs[0]['id']}").json()
        assert again["state"] == "done"  # what is done stays


def test_a_job_that_is_drawn_stops_within_a_scale(server: Server) -> None:
    job = server.post("/v1/jobs", {"prompt": "w10"}).json()
    until(lambda: server.get(f"/v1/jobs/{job['id']}").json()["scales_done"] == 1)
    assert server.call("DELETE", f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert server.get(f"/v1/jobs/{job['id']}").json()["scales_done"] == 1


@pytest.mark.parametrize("path", ["", "/image", "/events"])
def test_an_unknown_job(server: Server, path: str) -> None:
    answer = server.get(f"/v1/jobs/nothing{path}")
    assert answer.status == 404 and answer.json()["error"]["message"].startswith("job: expected one that is under way")


def test_capabilities(server: Server, words: Path) -> None:
    told = server.get("/v1/capabilities").json()
    (bundle,) = told["bundles"]
    assert bundle["name"] == "tiny-2" and bundle["sizes"] == ["32x32"] and bundle["scales"] == [1, 2]
    assert bundle["sha256"] == hart_edge.load(words).bundle.sha256 and bundle["styles"] == bundle["examples"] == []
    assert bundle["settings"]["cfg_scale"] == {
        "description": "guidance, 0 to 100",
        "type": "number",
        "default": 4.5,
        "minimum": 0,
        "maximum": 100,
    }
    assert bundle["settings"]["speed"]["enum"] == ["exact"]  # this bundle has no other
    assert bundle["settings"]["top_k"]["maximum"] == 6 and bundle["settings"]["top_p"]["exclusiveMinimum"] == 0
    assert (
        told["limits"]["queue"] == 8 and told["limits"]["workers"] == 2 and told["formats"] == ["png", "jpeg", "webp"]
    )


def test_the_document_has_every_route_that_is_served(server: Server) -> None:
    document = server.get("/openapi.json").json()
    told = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert told == {(each.method, each.path) for each in OPERATIONS}
    assert document["openapi"].startswith("3.1") and len(told) >= 20
    closed = {
        path
        for path, each in document["paths"].items()
        if each.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        .get("additionalProperties") is False
    }  # fmt: skip
    assert closed == {"/v1/scales", "/v1/jobs"}
    for method, path in told:  # none of them is a word alone
        answer = server.call(method, path.replace("{id}", "x").replace("{name}", "x"), {} if method == "POST" else None)
        assert answer.status in (200, 400, 404), (method, path, answer.status)


def test_unknown_paths_and_methods(server: Server) -> None:
    assert server.get("/v2/scales").status == 404 and server.get("/v1/scales").status == 405
    message = server.get("/v2/scales").json()["error"]["message"]
    assert message.startswith("path: expected one that GET /openapi.json lists")


def test_figures(server: Server) -> None:
    def drawn() -> float:
        return server.metric("hart_edge_pictures_total", bundle="tiny-2", outcome="done")

    before = drawn()
    server.post("/v1/scales", {"prompt": PROMPT})
    assert drawn() == before + 1
    assert server.metric("hart_edge_workers_ready") == 2 and server.metric("hart_edge_queue") == 0
    text = server.get("/metrics").data.decode()
    assert 'hart_edge_picture_seconds_bucket{bundle="tiny-2",le="+Inf"}' in text
    assert 'hart_edge_http_requests_total{route="/v1/scales",status="200"}' in text


def test_two_workers_draw_at_the_same_time(server: Server) -> None:
    answers: list[list[tuple[str, Any]]] = []

    def draw() -> None:
        answers.append(server.post("/v1/scales", {"prompt": "w10", "seed": 1}).events())

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: server.metric("hart_edge_drawing") == 2)
    for thread in threads:
        thread.join()
    assert json.dumps(answers[0][-1][1]["image"]) == json.dumps(answers[1][-1][1]["image"])
