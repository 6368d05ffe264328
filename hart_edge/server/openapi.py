"""The OpenAPI document: made of the operations that are served, so that it cannot tell of others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hart_edge import __version__
from hart_edge.server.catalogue import Catalogue
from hart_edge.server.service import JSON, Operation

ERROR = {
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
        },
        "detail": {"type": "string"},
    },
}
ALWAYS = {
    "400": "something in the request cannot be used",
    "401": "the key is missing or another",
    "403": "the host, the origin or the site is not allowed",
    "404": "there is nothing of this name",
    "405": "the method is another",
    "408": "the body did not come in time",
    "409": "the state of the job is another",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "this client has its share of the queue",
    "431": "the headers are too large",
    "500": "the picture could not be drawn",
    "503": "the queue is full, or no worker is ready",
}


def document(operations: Sequence[Operation], catalogue: Catalogue) -> dict[str, Any]:
    """OpenAPI 3.1. Every operation may answer with every refusal."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        about: dict[str, Any] = {
            "summary": each.summary,
            "operationId": re.sub(r"\W+", "_", f"{each.method.lower()}{each.path}").strip("_"),
            "parameters": list(each.parameters),
            "responses": {
                **{code: {"$ref": f"#/components/responses/{code}"} for code in ALWAYS},
                **{str(status): answer(kind, schema) for status, (kind, schema) in each.answers.items()},
            },
        }
        if each.body is not None:
            about["requestBody"] = {"required": True, "content": {JSON: {"schema": each.body(catalogue)}}}
        paths.setdefault(each.path, {})[each.method.lower()] = about
    refusals = {code: {"description": words, "content": {JSON: {"schema": ERROR}}} for code, words in ALWAYS.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "hart-edge", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "responses": refusals,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def answer(kind: str, schema: Any) -> dict[str, Any]:
    return {"description": "done", "content": {kind: {} if schema is None else {"schema": schema}}}
