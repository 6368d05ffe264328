"""The page's files: a few, read once, served as they are. They need no build step, and ask no other server for
anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/png.js": ("png.js", "text/javascript; charset=utf-8"),
    "/snippets.js": ("snippets.js", "text/javascript; charset=utf-8"),
    "/settings.js": ("settings.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def endpoint(path: str) -> Callable[[Request], Awaitable[Response]]:
    name, media_type = FILES[path]
    data = files("hart_edge.server").joinpath("static", name).read_bytes()

    async def call(_: Request) -> Response:
        return Response(data, 200, {"cache-control": "no-cache"}, media_type)

    return call
