"""The ASGI application: the routes of three APIs and the page, behind the guard.

In: a Service. Out: an application that starts the workers with its lifespan and ends them with it. Whatever goes wrong
in it becomes an answer in words; what is a fault of the program is logged with its trace and answered without.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hart_edge.errors import EngineError
from hart_edge.server import a1111_api, native_api, openai_api, page
from hart_edge.server.answers import ClientLeftError, RefusedError, json_response
from hart_edge.server.guard import Guard
from hart_edge.server.openapi import document
from hart_edge.server.service import JSON, Operation, Service

log = logging.getLogger(__name__)


async def openapi(service: Service, _: Request) -> Response:
    return json_response(document(OPERATIONS, service.catalogue))


OPERATIONS: tuple[Operation, ...] = (
    *openai_api.OPERATIONS,
    *a1111_api.OPERATIONS,
    *native_api.OPERATIONS,
    Operation("GET", "/openapi.json", "This document.", openapi, answers={200: (JSON, {"type": "object"})}),
)
PUBLIC = frozenset({"/healthz", *page.FILES})


def make_app(service: Service, failed: Callable[[EngineError], None] = lambda error: None) -> ASGIApp:
    """failed: told why the workers cannot open the bundles; then the application does not start."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await service.pool.start()
        except EngineError as error:
            await service.pool.close()
            failed(error)
            raise
        try:
            yield
        finally:
            await service.close()

    routes = [
        Route(each.path, endpoint(service, each), methods=[each.method], name=each.handler.__name__)
        for each in OPERATIONS
    ]
    routes += [Route(path, page.endpoint(path), methods=["GET"]) for path in page.FILES]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: refused_by_router, RefusedError: refused},  # type: ignore[dict-item]  # their errors
    )
    app.router.redirect_slashes = False
    return Counted(Guard(app, service.options, lambda path: path in PUBLIC), service)


def endpoint(service: Service, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: the operation's handler, whose errors are answers."""

    async def call(request: Request) -> Response:
        request.scope["hart_edge.route"] = operation.path
        try:
            return await operation.handler(service, request)
        except RefusedError as refusal:
            return refusal.response()
        except (ClientLeftError, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it
        except Exception:
            log.exception("a fault in %s %s", operation.method, operation.path)
            return RefusedError(500, "a fault of the server; its log has more").response()

    return call


async def refused_by_router(_: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    words = {404: "path: expected one that GET /openapi.json lists, found another", 405: "method: expected another"}
    return RefusedError(error.status_code, words.get(error.status_code, error.detail), headers=error.headers).response()


async def refused(_: Request, error: RefusedError) -> Response:
    return error.response()


class Counted:
    """Around everything: counts and logs the answers. A request's line has its path and no more of it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 499, time.perf_counter()  # of a client that left before there was an answer

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = scope.get("hart_edge.route", scope["path"] if scope["path"] in PUBLIC else "other")
            self._service.metrics.answered(route, status)
            log.info("%s %s %d %.3f s", scope["method"], route, status, time.perf_counter() - start)
