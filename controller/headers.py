"""The headers that every answer has, and other origins' pages, if any may ask.

An answer says that it is what it says it is (``nosniff``), that no page may show it in a frame, and
that its address is nobody's business; one of the API also that it is not to be kept, and that
nothing in it runs. What a route says itself stays. Over TLS browsers are told to stay with it.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.settings import Settings

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OF_THE_API = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
HSTS = "max-age=31536000"
CORS_SECONDS = 600
_ASKED = ("Authorization", "Content-Type", "If-None-Match", "Last-Event-ID")
_TOLD = ("ETag", "Retry-After", "X-Carrel-Frame", "X-Carrel-Size")
_ASKED_BY_MCP = ("Mcp-Method", "Mcp-Name", "Mcp-Protocol-Version", "Mcp-Session-Id")


class Headers:
    """The ASGI layer; see the module's head."""

    def __init__(self, app: ASGIApp, *, is_secure: bool) -> None:
        self._app = app
        self._headers = _ALWAYS | ({"Strict-Transport-Security": HSTS} if is_secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        of_the_api = scope["path"].startswith("/v1/")

        async def sending(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if of_the_api:
                    for name, value in _OF_THE_API.items():
                        headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending)


def for_other_origins(app: ASGIApp, settings: Settings) -> ASGIApp:
    """``app`` for pages of those origins that the settings name: with a key, never by a cookie."""
    if not settings.other_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.other_origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=(*_ASKED, *_ASKED_BY_MCP),
        expose_headers=_TOLD,
        max_age=CORS_SECONDS,
    )
