"""The A1111 API, in the order in which Open WebUI and other clients call it."""

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
from tests.server.running import Answer, Server, until

pytestmark = pytest.mark.long

BASIC = {"authorization": ""}  # what Open WebUI sends where no user and password are set


def test_what_open_webui_sends(server: Server, words: Path) -> None:
    """Check the address, list the models, choose one by sending all options back, draw."""
    assert server.get("/sdapi/v1/options", **BASIC).status == 200
    (model,) = server.get("/sdapi/v1/sd-models", **BASIC).json()
    assert model["model_name"] == "tiny-2" and model["title"].startswith("tiny-2 [") and len(model["sha256"]) == 64
    options = server.get("/sdapi/v1/options", **BASIC).json()
    assert options["sd_model_checkpoint"] == model["title"]
    options["sd_model_checkpoint"] = model["title"]
    assert server.post("/sdapi/v1/options", options, **BASIC).status == 200
    body = {"prompt": "w1 w2", "batch_size": 2, "width": 512, "height": 512, "steps": 50, "negative_prompt": "w3"}
    answer = server.post("/sdapi/v1/txt2img", body, **BASIC).json()
    assert set(answer) == {"images", "parameters", "info"} and len(answer["images"]) == 2
    info = json.loads(answer["info"])
    assert None not in info.values() and info["prompt"] == "w1 w2" and info["width"] == 32
    first, second = info["all_seeds"]
    assert first == info["seed"] and second == first + 1 and info["sd_model_name"] == "tiny-2"
    for image, seed in zip(answer["images"], info["all_seeds"], strict=True):
        found = Image.open(io.BytesIO(base64.b64decode(image)))
        expected = hart_edge.generate("w1 w2", bundle=words, seed=seed)
        assert found.tobytes() == expected.tobytes() and found.info["parameters"]  # type: ignore[union-attr]
    assert answer["parameters"]["width"] == 32 and answer["parameters"]["steps"] == 50


def test_seed_and_settings(server: Server, words: Path) -> None:
    body = {"prompt": "w1", "seed": 9, "cfg_scale": 7, "sampler_name": "Euler a", "n_iter": 2, "later": {}}
    answer = server.post("/sdapi/v1/txt2img", body).json()
    info = json.loads(answer["info"])
    assert info["all_seeds"] == [9, 10] and info["cfg_scale"] == 7 and "Seed: 9" in info["infotexts"][0]
    expected = hart_edge.generate("w1", bundle=words, seed=10, cfg_scale=7.0)
    found = Image.open(io.BytesIO(base64.b64decode(answer["images"][1])))
    assert found.tobytes() == expected.tobytes()  # type: ignore[union-attr]
    assert json.loads(server.post("/sdapi/v1/txt2img", {"prompt": "w1", "seed": -1}).json()["info"])["seed"] >= 0
    assert server.post("/sdapi/v1/txt2img", {"prompt": "w1", "send_images": False}).json()["images"] == []


def test_refusals_have_a_detail(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", {"prompt": "w1", "batch_size": 5, "n_iter": 5})
    assert answer.status == 400 and answer.json()["detail"] == "batch_size times n_iter: expected at most 16, found 25"
    assert server.post("/sdapi/v1/txt2img", {}).json()["detail"] == "prompt: expected a value, found none"


def test_samplers_and_schedulers(server: Server) -> None:
    assert [each["name"] for each in server.get("/sdapi/v1/samplers").json()] == ["HART"]
    assert [each["name"] for each in server.get("/sdapi/v1/schedulers").json()] == ["automatic"]


def in_the_background(server: Server, body: dict[str, Any]) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/sdapi/v1/txt2img", body)))
    thread.start()
    return thread, answers


def progress(server: Server, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/sdapi/v1/progress{query}").json()
    return found


def test_progress_while_drawing(server: Server) -> None:
    assert progress(server)["progress"] == 0 and progress(server)["state"]["job_count"] == 0
    thread, answers = in_the_background(server, {"prompt": "w10", "n_iter": 2})
    until(lambda: progress(server)["current_image"] is not None)
    found = progress(server)
    assert 0 < found["progress"] < 1 and found["state"]["job"] == "txt2img" and found["state"]["sampling_steps"] == 2
    assert progress(server, "?skip_current_image=true")["current_image"] is None
    thread.join()
    assert answers[0].status == 200 and progress(server)["progress"] == 0


def test_interrupt(server: Server) -> None:
    thread, answers = in_the_background(server, {"prompt": "w10", "batch_size": 8})
    until(lambda: progress(server)["current_image"] is not None)
    assert server.post("/sdapi/v1/interrupt", {}).json() == {}
    thread.join()
    assert answers[0].status == 200 and 1 <= len(answers[0].json()["images"]) < 8
    until(lambda: server.metric("hart_edge_drawing") == 0)


def test_no_previews_where_they_are_switched_off(server: Server) -> None:
    assert server.post("/sdapi/v1/options", {"live_previews_enable": False}).status == 200
    try:
        thread, _ = in_the_background(server, {"prompt": "w10"})
        until(lambda: progress(server)["state"]["sampling_step"] == 1)
        assert progress(server)["current_image"] is None
        thread.join()
    finally:
        server.post("/sdapi/v1/options", {"live_previews_enable": True})
