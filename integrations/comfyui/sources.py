"""Where pictures come from: a bundle that this process opens, or a server that `hart-edge serve` runs.

In: a prompt, a seed, settings. Out: (scale, scales, picture) of every scale, the last one the picture itself. Closing
the iterator stops the work, here and on a server.
"""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from PIL import Image

KEY = "HART_EDGE_API_KEY"  # of a server that asks for one; not an input, since ComfyUI writes inputs into pictures
SECONDS = 600.0  # without a word of a server

Step = tuple[int, int, Image.Image]


class Source(Protocol):
    def stream(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Iterator[Step]: ...


class BundleSource:
    """A bundle in this process; needs hart-edge[cpu] in ComfyUI's environment."""

    def __init__(self, folder: str, threads: int | None = None) -> None:
        import hart_edge

        self._pipeline = hart_edge.load(folder, threads=threads)

    def stream(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Iterator[Step]:
        for event in self._pipeline.stream(prompt, seed=seed, **settings):
            yield event.scale, event.scales, event.preview()


class ServerSource:
    """A server; needs nothing but the standard library and Pillow."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def stream(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Iterator[Step]:
        body = json.dumps({"prompt": prompt, "seed": seed, **settings}).encode()
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY):
            headers["authorization"] = f"Bearer {key}"
        ask = urllib.request.Request(f"{self._address}/v1/scales", body, headers)
        scales = 0
        try:
            with urllib.request.urlopen(ask, timeout=SECONDS) as answer:
                for name, data in events(answer):
                    if name == "error":
                        raise RuntimeError(f"hart-edge: {data['error']['message']}")
                    if name == "scale" and data["scale"] < data["scales"] - 1:
                        yield data["scale"], data["scales"], opened(data["preview"])
                    scales = data.get("scales", scales)
                    if name == "done":
                        yield scales - 1, scales, opened(data["image"])
                        return
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"hart-edge: {words_of(error)}") from error
        except urllib.error.URLError as error:
            raise RuntimeError(
                f"hart-edge: expected a server at {self._address}, found none ({error.reason}); start one with "
                "hart-edge serve"
            ) from error
        raise RuntimeError("hart-edge: the server ended before the picture was done; try again")


def events(lines: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, data) of server-sent events."""
    name = ""
    for raw in lines:
        line = raw.decode("utf-8").rstrip("\r\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def words_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered with status {error.code}"


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
