"""Answers of all routes: JSON, refusals in words, and streams of events that end with their reader.

A RefusedError is raised wherever something is wrong with a request; app.py turns it into an answer. It never holds a
path, a trace, or more of a request than what is wrong with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hart_edge.server.jobs import Cancelled, Failed

T = TypeVar("T")
BEAT = 10.0  # seconds between signs of life in a stream, which proxies cut when it is silent
KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RefusedError(Exception):
    """status: of HTTP; message: for the client; param: the field that is wrong; code: a word for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = (
            status,
            message,
            param,
            code,
            dict(headers or {}),
        )

    @classmethod
    def of(cls, result: Failed | Cancelled) -> RefusedError:
        """The refusal that a job without a picture comes to."""
        failed = result if isinstance(result, Failed) else Failed(409, "the picture was cancelled")
        return cls(failed.status, failed.message, headers={"retry-after": "1"} if failed.status == 503 else None)

    def body(self) -> dict[str, Any]:
        """OpenAI's form of an error; `detail` says the same to clients of the A1111 API."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error, "detail": self.message}

    def response(self) -> Response:
        return json_response(self.body(), self.status, self.headers)


class ClientLeftError(Exception):
    """Whoever asked has gone; nobody reads the answer."""


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    data = json.dumps(value, allow_nan=False).encode()
    return Response(data, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """What a piece of work returns. Raises ClientLeftError as soon as the client closes its connection."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeftError
    finally:
        await _end(working, leaving)


async def left(receive: Receive) -> None:
    """Return when the client has closed its connection; the request's body has been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events. closed: called at the end, whether the stream was read to it or not."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], closed: Callable[[], None] = lambda: None) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._closed = events, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing, leaving = asyncio.ensure_future(self._write(send)), asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            await _end(writing, leaving)
            await self._events.aclose()
            self._closed()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        following: asyncio.Future[bytes] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(self._events))
                while not (await asyncio.wait({following}, timeout=BEAT))[0]:
                    await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                try:
                    event = following.result()
                except StopAsyncIteration:
                    break
                await send({"type": "http.response.body", "body": event, "more_body": True})
        finally:
            if following is not None:
                await _end(following)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(name: str, data: Any) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
