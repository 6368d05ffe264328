"""The API of AUTOMATIC1111's web UI, as far as its clients draw pictures of prompts with it: /sdapi/v1/...

Source: what Open WebUI and other clients send, and the web UI's own answers. A bundle has one size and one way to
sample, so width, height, steps and samplers are taken and say nothing; the answer tells what was done. A bundle has no
negative prompt. `options` and `progress` are of one user in that API: here options are the server's, progress and
interrupt those of the address that asks.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hart_edge.server.answers import RefusedError, base64_of, json_response, unless_left
from hart_edge.server.catalogue import Catalogue, Served
from hart_edge.server.jobs import Cancelled, Done, Failed, Job, JobState
from hart_edge.server.options import MOST_PROMPT
from hart_edge.server.schema import Schema
from hart_edge.server.service import JSON, SEED_BOUND, Operation, Service, another, order_of, shared_settings

SAMPLER = "HART"
MOST_PICTURES = 16  # of a request, batch_size times n_iter
CHECKPOINT, PREVIEWS = "sd_model_checkpoint", "live_previews_enable"


def txt2img_schema(catalogue: Catalogue) -> Schema:
    """The body of POST /sdapi/v1/txt2img; what it knows and HART has not is taken without effect."""
    size = {"type": "integer", "minimum": 1, "maximum": 16_384, "description": "without effect: a bundle has one size"}
    return {
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "maxLength": MOST_PROMPT},
            "negative_prompt": {"type": "string", "description": "without effect"},
            "seed": {"type": "integer", "minimum": -1, "maximum": SEED_BOUND, "description": "-1: drawn by lot"},
            "batch_size": {"type": "integer", "minimum": 1, "maximum": MOST_PICTURES},
            "n_iter": {"type": "integer", "minimum": 1, "maximum": MOST_PICTURES},
            "width": size,
            "height": size,
            "steps": {"type": "integer", "minimum": 1, "maximum": 10_000, "description": "without effect"},
            "sampler_name": {"type": "string"},
            "scheduler": {"type": "string"},
            "send_images": {"type": "boolean"},
            "override_settings": {"type": "object", "properties": {CHECKPOINT: {"type": "string"}}},
            **shared_settings(catalogue),
        },
    }


def options_schema(_: Catalogue) -> Schema:
    return {"type": "object", "properties": {CHECKPOINT: {"type": "string"}, PREVIEWS: {"type": "boolean"}}}


async def txt2img(service: Service, request: Request) -> Response:
    given = await service.body(request, txt2img_schema(service.catalogue))
    chosen = given.get("override_settings", {}).get(CHECKPOINT)
    served = meant(service.catalogue, chosen or service.preferences.bundle)
    count = given.get("batch_size", 1) * given.get("n_iter", 1)
    if count > MOST_PICTURES:
        raise RefusedError(
            400, f"batch_size times n_iter: expected at most {MOST_PICTURES}, found {count}", param="n_iter"
        )
    previews = frozenset(range(served.scales - 1)) if service.preferences.live_previews else frozenset()
    asked = {name: value for name, value in given.items() if name != "seed" or value >= 0}
    first = order_of(served, asked, previews=previews)
    jobs = service.submit(request, [first, *(another(first, number) for number in range(1, count))])
    service.preferences.jobs.append(jobs)
    try:
        async with service.held(jobs):
            results = await unless_left(request, asyncio.gather(*(job.result() for job in jobs)))
    finally:
        service.preferences.jobs.remove(jobs)
    if failed := next((each for each in results if isinstance(each, Failed)), None):
        raise RefusedError.of(failed)
    images = [data for job, result in zip(jobs, results, strict=True) if (data := picture_of(job, result)) is not None]
    return json_response({
        "images": [base64_of(image) for image in images] if given.get("send_images", True) else [],
        "parameters": {**given, "width": served.manifest.image_size, "height": served.manifest.image_size},
        "info": json.dumps(info(served, jobs, given)),
    })  # fmt: skip


def picture_of(job: Job, result: Done | Failed | Cancelled) -> bytes | None:
    """The picture, or how far it was when it was interrupted."""
    return result.picture if isinstance(result, Done) else job.latest_preview


def meant(catalogue: Catalogue, name: object) -> Served:
    """The bundle of a title or a name, and the first for any other."""
    return catalogue.meant(name.partition(" [")[0] if isinstance(name, str) else name)


def title(served: Served) -> str:
    return f"{served.name} [{served.sha256[:10]}]"


def info(served: Served, jobs: Sequence[Job], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer's `info` holds, as JSON within JSON; nothing in it is null."""
    first, seeds = jobs[0].order.metadata, [job.order.metadata.seed for job in jobs]
    side = served.manifest.image_size
    return {
        "prompt": first.prompt,
        "all_prompts": [first.prompt] * len(jobs),
        "negative_prompt": "",
        "all_negative_prompts": [""] * len(jobs),
        "seed": first.seed,
        "all_seeds": seeds,
        "subseed": 0,
        "all_subseeds": [0] * len(jobs),
        "subseed_strength": 0,
        "width": side,
        "height": side,
        "sampler_name": SAMPLER,
        "steps": served.scales,
        **first.settings,
        "batch_size": given.get("batch_size", 1),
        "restore_faces": False,
        "face_restoration_model": "",
        "sd_model_name": served.name,
        "sd_model_hash": served.sha256[:10],
        "sd_vae_name": "",
        "sd_vae_hash": "",
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": 0,
        "extra_generation_params": {"bundle_sha256": served.sha256},
        "index_of_first_image": 0,
        "infotexts": [job.order.metadata.in_words() for job in jobs],
        "styles": [],
        "job_timestamp": timestamp(jobs[0]),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": f"hart-edge {first.version}",
    }


def timestamp(job: Job | None) -> str:
    moment = datetime.datetime.fromtimestamp(job.created if job else 0, datetime.UTC)
    return f"{moment:%Y%m%d%H%M%S}"


async def get_options(service: Service, _: Request) -> Response:
    served = service.catalogue.meant(service.preferences.bundle)
    return json_response({
        CHECKPOINT: title(served),
        "sd_checkpoint_hash": served.sha256,
        PREVIEWS: service.preferences.live_previews,
        "samples_format": "png",
    })  # fmt: skip


async def set_options(service: Service, request: Request) -> Response:
    """Options of other names are ignored: clients send back all that they were told."""
    given = await service.body(request, options_schema(service.catalogue))
    if CHECKPOINT in given:
        service.preferences.bundle = meant(service.catalogue, given[CHECKPOINT]).name
    service.preferences.live_previews = given.get(PREVIEWS, service.preferences.live_previews)
    return json_response({})


async def sd_models(service: Service, _: Request) -> Response:
    return json_response([
        {
            "title": title(each),
            "model_name": each.name,
            "hash": each.sha256[:10],
            "sha256": each.sha256,
            "filename": each.name,
            "config": None,
        }
        for each in service.catalogue
    ])  # fmt: skip


async def samplers(_: Service, __: Request) -> Response:
    return json_response([{"name": SAMPLER, "aliases": [], "options": {}}])


async def schedulers(_: Service, __: Request) -> Response:
    scheduler = {"name": "automatic", "label": "Automatic", "aliases": [], "default_rho": -1, "need_inner_model": False}
    return json_response([scheduler])


def own_jobs(service: Service, request: Request) -> list[Job]:
    """The pictures of the client's last request that is under way."""
    client = request.client.host if request.client else ""
    return next((jobs for jobs in reversed(service.preferences.jobs) if jobs[0].client == client), [])


async def progress(service: Service, request: Request) -> Response:
    jobs = own_jobs(service, request)
    current = next((job for job in jobs if not job.state.ended), None)
    steps = service.catalogue.named(current.order.bundle).scales if current else 0
    step = len(current.scales) if current else 0
    done = sum(job.state.ended for job in jobs)
    share = (done + step / steps) / len(jobs) if current else 0.0
    spent = sum(job.scales[-1].seconds for job in jobs if job.scales)
    skip = request.query_params.get("skip_current_image", "false").lower() in ("1", "true", "yes", "on")
    preview = None if current is None or skip else current.latest_preview
    return json_response({
        "progress": round(share, 4),
        "eta_relative": round(spent / share - spent, 3) if share else 0.0,
        "state": {
            "skipped": False,
            "interrupted": any(job.state is JobState.CANCELLED for job in jobs),
            "stopping_generation": False,
            "job": "txt2img" if current else "",
            "job_count": len(jobs) if current else 0,
            "job_timestamp": timestamp(current),
            "job_no": done,
            "sampling_step": step,
            "sampling_steps": steps,
        },
        "current_image": None if preview is None else base64_of(preview),
        "textinfo": None,
    })  # fmt: skip


async def interrupt(service: Service, request: Request) -> Response:
    for job in own_jobs(service, request):
        service.pool.cancel(job)
    return json_response({})


OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": OBJECT}
SKIP: Mapping[str, Any] = {"name": "skip_current_image", "in": "query", "schema": {"type": "boolean"}}
ANSWER: Schema = {
    "type": "object",
    "required": ["images", "parameters", "info"],
    "properties": {
        "images": {"type": "array", "items": {"type": "string"}},
        "parameters": OBJECT,
        "info": {"type": "string"},
    },
}
OPERATIONS = (
    Operation(
        "POST", "/sdapi/v1/txt2img", "Draw pictures of a prompt.", txt2img, txt2img_schema, {200: (JSON, ANSWER)}
    ),
    Operation("GET", "/sdapi/v1/options", "The bundle in use.", get_options, answers={200: (JSON, OBJECT)}),
    Operation("POST", "/sdapi/v1/options", "Use another bundle.", set_options, options_schema, {200: (JSON, OBJECT)}),
    Operation("GET", "/sdapi/v1/sd-models", "The bundles.", sd_models, answers={200: (JSON, LIST)}),
    Operation("GET", "/sdapi/v1/samplers", "The one way to sample.", samplers, answers={200: (JSON, LIST)}),
    Operation("GET", "/sdapi/v1/schedulers", "The one schedule.", schedulers, answers={200: (JSON, LIST)}),
    Operation(
        "GET",
        "/sdapi/v1/progress",
        "How far the client's last request is.",
        progress,
        answers={200: (JSON, OBJECT)},
        parameters=(SKIP,),
    ),
    Operation(
        "POST", "/sdapi/v1/interrupt", "End the client's last request.", interrupt, answers={200: (JSON, OBJECT)}
    ),
)
