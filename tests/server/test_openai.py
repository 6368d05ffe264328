"""OpenAI's images API, by the real openai package: pictures, streams, errors, and its retries."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

import hart_edge
from hart_edge.runtime.picture_metadata import KEYWORD
from tests.server.running import Server, serving

pytestmark = pytest.mark.long

PROMPT = "w1 w2"


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=0)


def opened(data: str | None) -> Image.Image:
    assert data is not None
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_picture_is_the_one_that_the_library_draws(client: openai.OpenAI, words: Path) -> None:
    answer = client.images.generate(prompt=PROMPT, model="gpt-image-1", size="32x32", extra_body={"seed": 5})  # type: ignore[call-overload]
    (drawn,) = answer.data or []
    expected = hart_edge.generate(PROMPT, bundle=words, seed=5)
    image = opened(drawn.b64_json)
    assert image.format == "PNG" and image.tobytes() == expected.tobytes()  # type: ignore[union-attr]
    assert '"seed": 5' in image.info[KEYWORD] and drawn.url is None
    assert (answer.size, answer.output_format, answer.background) == ("32x32", "png", "opaque")
    assert answer.usage is not None and answer.usage.input_tokens == 2 and answer.usage.output_tokens == 5
    assert answer.usage.total_tokens == 7


def test_several_pictures_have_consecutive_seeds(client: openai.OpenAI, words: Path) -> None:
    answer = client.images.generate(prompt=PROMPT, n=3, extra_body={"seed": 2**64 - 2})
    images = [opened(each.b64_json) for each in answer.data or []]
    seeds = [2**64 - 2, 2**64 - 1, 0]
    assert [each.model_extra for each in answer.data or []] == [{"seed": seed} for seed in seeds]
    expected = [hart_edge.generate(PROMPT, bundle=words, seed=seed).tobytes() for seed in seeds]  # type: ignore[union-attr]
    assert [image.tobytes() for image in images] == expected


def test_a_random_seed_is_reported(client: openai.OpenAI) -> None:
    first, second = (
        (client.images.generate(prompt=PROMPT).data or [None])[0],
        (client.images.generate(prompt=PROMPT).data or [None])[0],
    )
    assert first and second and first.model_extra != second.model_extra


@pytest.mark.parametrize(("output_format", "compression"), [("png", 100), ("jpeg", 40), ("webp", 100), ("webp", 30)])
def test_formats(client: openai.OpenAI, words: Path, output_format: Any, compression: int) -> None:
    answer = client.images.generate(
        prompt=PROMPT, output_format=output_format, output_compression=compression, extra_body={"seed": 5}
    )
    image = opened((answer.data or [])[0].b64_json)
    assert image.format == output_format.upper() and image.size == (32, 32)
    if compression == 100:
        assert image.tobytes() == hart_edge.generate(PROMPT, bundle=words, seed=5).tobytes()  # type: ignore[union-attr]


def test_an_address_of_the_picture(client: openai.OpenAI, server: Server) -> None:
    answer = client.images.generate(prompt=PROMPT, response_format="url")
    url = (answer.data or [])[0].url
    assert url is not None and url.startswith(server.address)
    found = server.get(url.removeprefix(server.address))
    assert found.status == 200 and found.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(found.data)).size == (32, 32)


def test_a_stream_of_one_partial_image(client: openai.OpenAI, words: Path) -> None:
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body={"seed": 5}))
    assert [each.type for each in events] == ["image_generation.partial_image", "image_generation.completed"]
    partial, completed = events  # two scales: there is one before the last
    assert partial.type == "image_generation.partial_image" and partial.partial_image_index == 0
    assert (partial.output_format, partial.background, partial.quality) == ("png", "opaque", "high")
    previews = [event.preview() for event in hart_edge.load(words).stream(PROMPT, seed=5)]
    assert [opened(each.b64_json).tobytes() for each in events] == [each.tobytes() for each in previews]
    assert completed.type == "image_generation.completed" and completed.usage.total_tokens == 7
    assert completed.created_at > 1.7e9 and completed.size == "32x32"


def test_a_stream_of_several_pictures(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt=PROMPT, stream=True, n=2))
    assert [each.type for each in events] == ["image_generation.completed"] * 2


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny-2" and model.object == "model" and model.owned_by == "hart-edge"
    assert client.models.retrieve("tiny-2") == model
    with pytest.raises(openai.NotFoundError, match="expected one of GET /v1/models"):
        client.models.retrieve("gpt-image-1")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"n": 0}, "n", "n: expected 1 to 10, found 0"),
        ({"n": 11}, "n", "n: expected 1 to 10, found 11"),
        ({"n": True}, "n", "n: expected an integer, found true"),
        ({"n": 1.5}, "n", "n: expected an integer, found 1.5"),
        ({"size": "1024x1024"}, "size", 'size: expected one of auto, 32x32, found "1024x1024"'),
        ({"response_format": "xml"}, "response_format", 'expected one of b64_json, url, found "xml"'),
        ({"output_format": "gif"}, "output_format", 'expected one of png, jpeg, webp, found "gif"'),
        ({"output_compression": 101}, "output_compression", "expected 0 to 100, found 101"),
        ({"output_compression": 50}, "output_compression", "expected 100 for png"),
        ({"partial_images": 4, "stream": True}, "partial_images", "expected 0 to 3, found 4"),
        ({"background": "transparent"}, "background", "expected one of auto, opaque"),
        ({"quality": "best"}, "quality", 'found "best"'),
        ({"stream": "yes"}, "stream", 'stream: expected a boolean, found "yes"'),
        ({"seed": -1}, "seed", "seed: expected 0 to 18446744073709551615, found -1"),
        ({"cfg_scale": 101}, "cfg_scale", "cfg_scale: expected 0 to 100, found 101"),
        ({"top_p": 0}, "top_p", "top_p: expected above 0 and at most 1, found 0"),
        ({"prompt": ""}, "prompt", "prompt: expected 1 to 32,000 characters, found 0"),
        ({"prompt": "  "}, "prompt", "prompt: expected words, found an empty string"),
        ({"prompt": "\ud800"}, "prompt", "prompt: not valid Unicode"),
        ({"prompt": 3}, "prompt", "prompt: expected a string, found 3"),
        ({"prompt": None}, "prompt", "prompt: expected a value, found none"),
    ],
)
def test_bad_requests_are_refused(server: Server, body: dict[str, Any], param: str, message: str) -> None:
    answer = server.post("/v1/images/generations", {"prompt": PROMPT, **body})
    assert answer.status == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == param and message in error["message"]


def test_unknown_and_null_parameters_are_ignored(server: Server) -> None:
    body = {"prompt": PROMPT, "model": "dall-e-3", "later": {"deep": [1]}, "n": None, "seed": None, "quality": "hd"}
    more = {"style": "vivid", "moderation": "low", "user": "somebody", "background": "auto", "size": "auto"}
    assert server.post("/v1/images/generations", {**body, **more}).status == 200


@pytest.fixture(params=[2, None], ids=["429", "503"])
def crowded(request: pytest.FixtureRequest, words: Path, tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server with one worker and one place in the queue, and maybe two pictures of one address at a time; and the
    status of what it refuses."""
    with serving(tmp_path / "crowded", words, queue=1, client_queue=request.param) as it:
        yield it, 429 if request.param else 503


def test_the_package_tries_again_when_the_queue_is_full(crowded: tuple[Server, int]) -> None:
    server, status = crowded
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=5)
    none = openai.OpenAI(base_url=f"{server.address}/v1", api_key="unused", max_retries=0)
    slow = [threading.Thread(target=server.post, args=("/v1/scales", {"prompt": "w10"})) for _ in range(2)]
    for thread in slow:
        thread.start()
    while server.metric("hart_edge_queue") < 1:
        pass
    with pytest.raises(openai.APIStatusError) as caught:
        none.images.generate(prompt=PROMPT)
    assert caught.value.status_code == status and int(caught.value.response.headers["retry-after"]) >= 1
    assert client.images.generate(prompt=PROMPT).data
    for thread in slow:
        thread.join()
    assert server.metric("hart_edge_http_requests_total", route="/v1/images/generations", status=str(status)) >= 2


def test_an_error_in_a_stream_is_raised_by_the_package(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="the server has not enough memory for this picture now"):
        list(client.images.generate(prompt="w13", stream=True))


def test_errors_of_pictures(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="not enough memory") as caught:
        client.images.generate(prompt="w13")
    assert caught.value.status_code == 503
    with pytest.raises(openai.InternalServerError, match="the server's log says why") as caught:
        client.images.generate(prompt="w14")
    assert caught.value.status_code == 500 and "secret" not in caught.value.response.text
