"""The API of hart-edge itself, where the method shows: a picture as a stream of its scales, and jobs with their places.

POST /v1/scales draws while it is read, and stops when its reader leaves. POST /v1/jobs draws whether anybody looks or
not; the job has an address, events from the first on, a picture, and can be cancelled. docs/server.md has an example of
each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hart_edge import __version__
from hart_edge.bundle.settings import SETTINGS
from hart_edge.errors import InputError
from hart_edge.server.answers import EventStream, RefusedError, base64_of, event, json_response
from hart_edge.server.catalogue import Catalogue, Served
from hart_edge.server.encoding import Encoding, Format
from hart_edge.server.jobs import Cancelled, Done, Failed, Job, JobEvent, JobState, Position, Scale
from hart_edge.server.options import MOST_PROMPT
from hart_edge.server.schema import Schema
from hart_edge.server.service import EVENTS, JSON, SEED_BOUND, Operation, Service, order_of, shared_settings


def scales_schema(catalogue: Catalogue) -> Schema:
    """The body of POST /v1/scales and of POST /v1/jobs."""
    return {
        "type": "object",
        "required": ["prompt"],
        "additionalProperties": False,
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "maxLength": MOST_PROMPT, "description": "what to draw"},
            "bundle": {"type": "string", "description": "by default the first of GET /v1/capabilities"},
            "seed": {
                "description": "left out: a random one; its digits as a string keep it exact in JavaScript",
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": SEED_BOUND},
                    {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[0-9]+$", "description": "digits"},
                ],
            },
            "previews": {
                "type": "boolean",
                "description": "decode every scale (true by default); costs a decoder's run each",
            },
            "format": {"type": "string", "enum": [*Format], "description": "of previews and picture; png by default"},
            **shared_settings(catalogue),
        },
    }


async def enqueue(service: Service, request: Request) -> tuple[Served, Job]:
    """The job that a body asks for, in the queue. Raises RefusedError."""
    given = await service.body(request, scales_schema(service.catalogue))
    try:
        served = service.catalogue.named(given.get("bundle"))
    except InputError as error:
        raise RefusedError(400, str(error), param="bundle") from error
    previews = frozenset(range(served.scales)) if given.get("previews", True) else frozenset()
    order = order_of(served, given, previews=previews, encoding=Encoding(Format(given.get("format", "png"))))
    (job,) = service.submit(request, [order])
    return served, job


async def scales(service: Service, request: Request) -> Response:
    served, job = await enqueue(service, request)
    return EventStream(stream(served, job), lambda: service.cancel([job]))


async def create_job(service: Service, request: Request) -> Response:
    _, job = await enqueue(service, request)
    return json_response(facts_of(service, job), 202, {"location": f"/v1/jobs/{job.id}"})


def found(service: Service, request: Request) -> Job:
    job = service.shelf.get(request.path_params["id"])
    if job is None:
        raise RefusedError(404, "job: expected one that is under way or among the last to end, found none of this id")
    return job


async def job(service: Service, request: Request) -> Response:
    return json_response(facts_of(service, found(service, request)))


async def job_events(service: Service, request: Request) -> Response:
    """The same events as POST /v1/scales, from the first; leaving does not end the job."""
    watched = found(service, request)
    return EventStream(stream(service.catalogue.named(watched.order.bundle), watched))


async def cancel_job(service: Service, request: Request) -> Response:
    cancelled = found(service, request)
    service.pool.cancel(cancelled)
    return json_response(facts_of(service, cancelled))


async def image(service: Service, request: Request) -> Response:
    wanted = found(service, request)
    for each in wanted.events:
        if isinstance(each, Done):
            encoding = wanted.order.encoding.format
            name = f'inline; filename="hart-edge-{wanted.order.metadata.seed}.{encoding}"'
            headers = {"cache-control": "private, max-age=3600, immutable", "content-disposition": name}
            return Response(each.picture, 200, headers, encoding.media_type)
        if isinstance(each, Failed | Cancelled):
            raise RefusedError.of(each)
    raise RefusedError(409, f"job: expected one that is done, found it {wanted.state}", headers={"retry-after": "1"})


def facts_of(service: Service, job: Job) -> dict[str, Any]:
    """What GET /v1/jobs/{id} says."""
    metadata, ended = job.order.metadata, job.events[-1] if job.events and job.state.ended else None
    scales = job.scales
    return {
        "id": job.id,
        "state": job.state,
        "position": service.pool.position(job),
        "created": round(job.created, 3),
        "prompt": metadata.prompt,
        **described(job),
        "scales_done": len(scales),
        "scales": service.catalogue.named(metadata.bundle).scales,
        "seconds": round(ended.seconds if isinstance(ended, Done) else scales[-1].seconds if scales else 0.0, 4),
        "error": ended.message if isinstance(ended, Failed) else None,
        "image": f"/v1/jobs/{job.id}/image" if job.state is JobState.DONE else None,
    }


def described(job: Job) -> dict[str, Any]:
    """What a picture is drawn from, with every default resolved."""
    m = job.order.metadata
    return {
        "seed": m.seed,
        "settings": dict(m.settings),
        "bundle": m.bundle,
        "bundle_sha256": m.bundle_sha256,
        "version": m.version,
        "warnings": list(job.order.warnings),
    }


async def stream(served: Served, job: Job) -> AsyncGenerator[bytes, None]:
    """Events: job, then queue for every place, scale for every scale, and one of done, error, cancelled."""
    yield event("job", {"id": job.id, "scales": served.scales, "prompt": job.order.metadata.prompt, **described(job)})
    async for each in job.follow():
        name, data = told(served, job, each)
        yield event(name, data)


def told(served: Served, job: Job, each: JobEvent) -> tuple[str, Mapping[str, Any]]:
    """The name and data of a job's event."""
    kind = job.order.encoding.format.media_type
    if isinstance(each, Position):
        return "queue", {"position": each.position}
    if isinstance(each, Scale):
        side = served.side(each.scale)
        preview = None if each.preview is None else base64_of(each.preview)
        seconds = round(each.seconds, 4)
        return "scale", {
            "scale": each.scale,
            "scales": served.scales,
            "side": side,
            "tokens": served.tokens(job.order)[each.scale],
            "seconds": seconds,
            "preview": preview,
            "media_type": kind,
        }
    if isinstance(each, Done):
        side, seconds = served.manifest.image_size, round(each.seconds, 4)
        picture = base64_of(each.picture)
        return "done", {"image": picture, "media_type": kind, "width": side, "height": side, "seconds": seconds}
    if isinstance(each, Failed):
        return "error", {"status": each.status, **RefusedError.of(each).body()}
    return "cancelled", {}


async def capabilities(service: Service, _: Request) -> Response:
    """What can be asked for."""
    options, limits = service.options, service.options.limits
    bundles = [
        {
            "name": each.name,
            "sha256": each.sha256,
            "precision": each.manifest.precision,
            "sizes": [each.size],
            "scales": list(each.manifest.patch_nums),
            "styles": list(each.hints.styles),
            "examples": list(each.hints.examples),
            "context_tokens": each.manifest.context_tokens,
            "settings": each.setting_schemas(),
            "random_weights": each.manifest.random,
        }
        for each in service.catalogue
    ]
    return json_response({
        "version": __version__,
        "bundles": bundles,
        "formats": [*Format],
        "seed": {"minimum": 0, "maximum": str(SEED_BOUND)},
        "limits": {
            "queue": options.queue,
            "client_queue": options.client_queue,
            "workers": options.workers,
            "body_bytes": limits.body,
            "header_bytes": limits.headers,
            "prompt_characters": MOST_PROMPT,
            "pictures_a_request": 10,
            "pictures_kept": limits.kept,
        },
        "queue": {"waiting": service.pool.waiting, "drawing": len(service.pool.drawing)},
        "apis": ["openai", "a1111", "hart-edge"],
    })  # fmt: skip


async def healthz(service: Service, _: Request) -> Response:
    """For whoever restarts servers: whether a picture could be drawn."""
    ready = service.pool.ready
    return json_response({"status": "ok" if ready else "no worker", "workers": ready}, 200 if ready else 503)


async def metrics(service: Service, _: Request) -> Response:
    from hart_edge.server.metrics import MEDIA_TYPE

    return Response(service.metrics.text(), 200, {"cache-control": "no-store"}, MEDIA_TYPE)


OBJECT: Schema = {"type": "object"}
JOB: Schema = {
    "type": "object",
    "required": ["id", "state", "seed", "settings", "bundle", "bundle_sha256"],
    "properties": {
        "id": {"type": "string"},
        "state": {"type": "string", "enum": [*JobState]},
        "seed": {"type": "integer", "minimum": 0, "maximum": SEED_BOUND},
        "settings": {"type": "object", "required": [*SETTINGS]},
    },
}
ID: Mapping[str, Any] = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
OPERATIONS = (
    Operation(
        "POST", "/v1/scales", "Draw a picture and follow its scales.", scales, scales_schema, {200: (EVENTS, None)}
    ),
    Operation("POST", "/v1/jobs", "Put a picture into the queue.", create_job, scales_schema, {202: (JSON, JOB)}),
    Operation("GET", "/v1/jobs/{id}", "How far a job is.", job, answers={200: (JSON, JOB)}, parameters=(ID,)),
    Operation("DELETE", "/v1/jobs/{id}", "Cancel a job.", cancel_job, answers={200: (JSON, JOB)}, parameters=(ID,)),
    Operation(
        "GET",
        "/v1/jobs/{id}/events",
        "Follow a job from its first event on.",
        job_events,
        answers={200: (EVENTS, None)},
        parameters=(ID,),
    ),
    Operation(
        "GET",
        "/v1/jobs/{id}/image",
        "The picture of a job that is done.",
        image,
        answers={200: ("image/*", None)},
        parameters=(ID,),
    ),
    Operation(
        "GET", "/v1/capabilities", "Bundles, sizes, limits, settings.", capabilities, answers={200: (JSON, OBJECT)}
    ),
    Operation("GET", "/healthz", "Whether a picture could be drawn.", healthz, answers={200: (JSON, OBJECT)}),
    Operation("GET", "/metrics", "Figures for Prometheus.", metrics, answers={200: ("text/plain", None)}),
)
