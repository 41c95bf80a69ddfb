"""Which request the daemon answers, by its caller's name for it, and how long that takes here.

The name is in every line of the log that belongs to the request; the time goes with the answer as
``Server-Timing`` (W3C Server Timing), from which the caller makes a span of its trace.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workspace import logs


class Timed:
    """An application whose requests are named and timed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = (time.perf_counter() - began) * 1000
                timing = (b"server-timing", b"desktopd;dur=%.3f" % took)
                message["headers"] = [*message.get("headers", ()), timing]
            await send(message)

        with logs.answering(logs.Request(logs.request_id(scope["headers"]))):
            await self._app(scope, receive, sending)
