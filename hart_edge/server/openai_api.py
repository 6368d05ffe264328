"""OpenAI's images API: /v1/images/generations and /v1/models, as the openai packages of Python and JavaScript call
them.

Sources: OpenAI's API reference and the types of its Python package. Beyond it: `seed`, and the settings of bundles
under their own names. What a request may hold and a bundle cannot do is refused (a size, transparency); what has no
meaning here (quality, style, moderation, user) is checked and has no effect; fields that OpenAI does not know are
ignored.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hart_edge.errors import InputError
from hart_edge.server.answers import EventStream, RefusedError, base64_of, event, json_response, unless_left
from hart_edge.server.catalogue import Catalogue, Served
from hart_edge.server.encoding import Encoding, Format
from hart_edge.server.jobs import Cancelled, Done, Failed, Job, Order, Scale
from hart_edge.server.options import MOST_PROMPT
from hart_edge.server.schema import Schema
from hart_edge.server.service import JSON, SEED_BOUND, Operation, Service, another, order_of, shared_settings

MOST_PICTURES, MOST_PARTIAL = 10, 3
CREATED = 1728864000  # seconds since 1970: when the paper of HART appeared; bundles have no date of their own


def generation_schema(catalogue: Catalogue) -> Schema:
    """The body of POST /v1/images/generations."""
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "maxLength": MOST_PROMPT, "description": "what to draw"},
            "model": {"type": "string", "description": "a bundle's name; any other name means the first bundle"},
            "n": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_PICTURES,
                "description": "pictures, of rising seeds",
            },
            "size": {"type": "string", "enum": ["auto", *dict.fromkeys(each.size for each in catalogue)]},
            "response_format": {"type": "string", "enum": ["b64_json", "url"]},
            "output_format": {"type": "string", "enum": [*Format]},
            "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
            "stream": {"type": "boolean"},
            "partial_images": {"type": "integer", "minimum": 0, "maximum": MOST_PARTIAL},
            "background": {"type": "string", "enum": ["auto", "opaque"]},
            "quality": {
                "type": "string",
                "enum": ["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"],
            },
            "style": {"type": "string", "enum": ["vivid", "natural"]},
            "moderation": {"type": "string", "enum": ["auto", "low"]},
            "user": {"type": "string", "maxLength": 512},
            "seed": {"type": "integer", "minimum": 0, "maximum": SEED_BOUND, "description": "of the first picture"},
            **shared_settings(catalogue),
        },
    }


async def generate(service: Service, request: Request) -> Response:
    given = await service.body(request, generation_schema(service.catalogue))
    served = service.catalogue.meant(given.get("model"))
    if given.get("size", "auto") not in ("auto", served.size):
        raise RefusedError(400, f"size: expected auto or {served.size}, found {given['size']}", param="size")
    encoding = Encoding(Format(given.get("output_format", "png")), given.get("output_compression", 100))
    if encoding.format is Format.PNG and encoding.quality != 100:
        raise RefusedError(400, "output_compression: expected 100 for png, found less", param="output_compression")
    partial = served.evenly(given.get("partial_images", 0)) if given.get("stream", False) else frozenset()
    first = order_of(served, given, previews=partial, encoding=encoding)
    orders = [first, *(another(first, number) for number in range(1, given.get("n", 1)))]
    jobs = service.submit(request, orders)
    as_url = given.get("response_format") == "url"
    facts = {
        "background": "opaque",
        "output_format": str(encoding.format),
        "quality": QUALITY.get(given.get("quality", "auto"), given.get("quality", "high")),
        "size": served.size,
    }
    if given.get("stream", False):
        return EventStream(stream(served, jobs, facts), lambda: service.cancel(jobs))
    async with service.held(jobs):
        data = await unless_left(request, pictures(request, jobs, as_url))
    usage = usage_of(served, first, len(jobs))
    return json_response({"created": int(time.time()), "data": data, **facts, "usage": usage})


QUALITY = {"auto": "high", "standard": "medium", "hd": "high"}


async def pictures(request: Request, jobs: list[Job], as_url: bool) -> list[dict[str, Any]]:
    """The entries of `data`. seed: an extension, what each was drawn from. Raises RefusedError where one fails."""
    data = []
    for job in jobs:
        result = await job.result()
        if not isinstance(result, Done):
            raise RefusedError.of(result)
        seed = job.order.metadata.seed
        if as_url:
            url = str(request.url_for("image", id=job.id))
            data.append({"url": url, "seed": seed})
        else:
            data.append({"b64_json": base64_of(result.picture), "seed": seed})
    return data


async def stream(served: Served, jobs: list[Job], facts: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """partial_image events of the scales that were asked for, and a completed event for each picture."""
    for job in jobs:
        number = 0
        async for each in job.follow():
            now = {"created_at": int(time.time()), **facts}
            if isinstance(each, Scale) and each.preview is not None:
                name = "image_generation.partial_image"
                data = {"b64_json": base64_of(each.preview), **now, "partial_image_index": number}
                yield event(name, {"type": name, **data})
                number += 1
            elif isinstance(each, Done):
                name, usage = "image_generation.completed", usage_of(served, job.order, 1)
                data = {"b64_json": base64_of(each.picture), **now, "usage": usage, "seed": job.order.metadata.seed}
                yield event(name, {"type": name, **data})
            elif isinstance(each, Failed | Cancelled):
                yield event("error", {"type": "error", **RefusedError.of(each).body()})
                return


def usage_of(served: Served, order: Order, count: int) -> dict[str, Any]:
    """Tokens that are read and computed for so many pictures of an order: of a picture, those of all its scales."""
    read, drawn = served.words(order.metadata.prompt or ""), sum(served.tokens(order)) * count
    return {
        "input_tokens": read,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": read},
        "output_tokens": drawn,
        "output_tokens_details": {"image_tokens": drawn, "text_tokens": 0},
        "total_tokens": read + drawn,
    }


def model_of(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": CREATED, "owned_by": "hart-edge"}


async def models(service: Service, _: Request) -> Response:
    return json_response({"object": "list", "data": [model_of(each) for each in service.catalogue]})


async def model(service: Service, request: Request) -> Response:
    try:
        return json_response(model_of(service.catalogue.named(request.path_params["name"])))
    except InputError as error:
        raise RefusedError(
            404, "model: expected one of GET /v1/models", param="model", code="model_not_found"
        ) from error


OBJECT: Schema = {"type": "object"}
OPERATIONS = (
    Operation(
        "POST",
        "/v1/images/generations",
        "Draw pictures, as OpenAI's images API has it.",
        generate,
        generation_schema,
        {200: (JSON, {"type": "object", "required": ["created", "data"]})},
    ),
    Operation("GET", "/v1/models", "The bundles, as OpenAI lists models.", models, answers={200: (JSON, OBJECT)}),
    Operation(
        "GET",
        "/v1/models/{name}",
        "One bundle.",
        model,
        answers={200: (JSON, OBJECT)},
        parameters=({"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},),
    ),
)
