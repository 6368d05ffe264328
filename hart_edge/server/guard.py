"""Who may ask what, before any route sees a request: addresses, origins, the key, and the sizes of headers and bodies.

In: every request. Out: the request, with a body that ends at the limit and in time, or a RefusedError's answer; and on
every answer the headers that keep a browser from doing more with it than the page needs. Loopback is no protection
against pages of other sites that the same browser shows: they may post to it, and a name of theirs may point to it (DNS
rebinding). The allow lists of Host and Origin are.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hart_edge.server.answers import RefusedError
from hart_edge.server.options import ServerOptions, is_address

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
ON_EVERY_ANSWER = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
CORS_HEADERS = "authorization, content-type"
CORS_AGE = "600"  # seconds
LINGER = 8  # a body that is too large is read to this many times the limit, so that its sender hears the answer
CLOSE = {"connection": "close"}


class Guard:
    """public: whether a path is served without the key."""

    def __init__(self, app: ASGIApp, options: ServerOptions, public: Callable[[str], bool]) -> None:
        self._app, self._options, self._public = app, options, public
        names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in options.allowed_hosts)}
        self._names = names if is_address(options.host) else names | {options.host.lower()}
        self._key = None if options.api_key is None else digest(options.api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin if origin in self._options.allowed_origins else None
        guarded = self._sender(send, foreign)
        try:
            self._check(scope, headers)
            if foreign is not None and scope["method"] == "OPTIONS":
                await preflight()(scope, receive, guarded)
                return
            body = self._body(receive)
        except RefusedError as refusal:
            if refusal.status == 413:
                await self._linger(receive)
            await refusal.response()(scope, receive, guarded)
            return
        await self._app(scope, body, guarded)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises RefusedError for a request that no route may see."""
        limits = self._options.limits
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["query_string"])
        if size + len(scope["raw_path"]) > limits.headers:
            raise RefusedError(431, f"expected headers of at most {limits.headers:,} bytes, found more", headers=CLOSE)
        self._check_host(headers.getlist("host"))
        self._check_origin(headers)
        if scope["method"] != "OPTIONS" and self._key is not None and not self._public(scope["path"]):
            self._check_key(headers.get("authorization", ""))
        try:
            length = int(headers.get("content-length", "0"))
        except ValueError as error:
            raise RefusedError(400, "content-length: expected a number", headers=CLOSE) from error
        if length > limits.body:
            raise self._too_large()

    def _check_host(self, given: list[str]) -> None:
        host = host_of(given[0]) if len(given) == 1 else None
        if host is None or not ("*" in self._names or host in self._names or is_address(host)):
            raise RefusedError(
                403,
                "host: expected an address or a name of this server, found another; see --allow-host",
                headers=CLOSE,
            )

    def _check_origin(self, headers: Headers) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._options.allowed_origins:
            return
        if origin is not None:
            parts = urlsplit(origin) if "://" in origin else None
            if parts is None or parts.netloc.lower() != headers.get("host", "").lower():
                raise RefusedError(
                    403, "origin: expected a page of this server, found another; see --allow-origin", headers=CLOSE
                )
        elif site == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise RefusedError(403, "sec-fetch-site: expected a page of this server, found another", headers=CLOSE)

    def _check_key(self, given: str) -> None:
        assert self._key is not None  # only called where there is one
        if not hmac.compare_digest(digest(key_in(given)), self._key):
            raise RefusedError(
                401,
                "expected the server's key, as in Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer", **CLOSE},
            )

    def _body(self, receive: Receive) -> Receive:
        """receive() of a request whose body has a size limit and a time limit."""
        limits, end, taken, whole = self._options.limits, time.monotonic() + self._options.limits.read, 0, False

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:  # the body is there: what comes now is the client's leaving, which has no limit
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    message = await receive()
            except TimeoutError as error:
                raise RefusedError(
                    408, f"expected the whole body within {limits.read:g} seconds, found a part", headers=CLOSE
                ) from error
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > limits.body:
                await self._linger(receive)
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413, f"expected a body of at most {self._options.limits.body:,} bytes, found more", headers=CLOSE
        )

    async def _linger(self, receive: Receive) -> None:
        """Read on for a while: a connection that is closed while its body comes in loses the answer."""
        taken, limits = 0, self._options.limits
        try:
            async with asyncio.timeout(min(2.0, limits.read)):
                while taken < LINGER * limits.body:
                    message = await receive()
                    taken += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _sender(self, send: Send, foreign: str | None) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ON_EVERY_ANSWER.items():
                    headers.setdefault(name, value)
                if foreign is not None:
                    headers["access-control-allow-origin"] = foreign
                    headers["cross-origin-resource-policy"] = "cross-origin"
                    headers.add_vary_header("Origin")
            await send(message)

        return guarded


def preflight() -> Response:
    """What a browser asks before a page of an allowed origin may post."""
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": CORS_HEADERS,
            "access-control-max-age": CORS_AGE,
        },
    )


def host_of(header: str) -> str | None:
    """The name or address in a Host header, without its port; None for what is neither."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises ValueError for a port that is none
        host = parts.hostname
    except ValueError:
        return None
    if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return host.rstrip(".")


def key_in(authorization: str) -> str:
    """The key in an Authorization header: a bearer token, or the password of Basic, as A1111's clients send it."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def digest(key: str) -> bytes:
    """Keys are compared by their sums, which have one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
