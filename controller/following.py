"""Each request, followed from its first byte to its last: the outermost ASGI layer.

It gives it an id, which every answer, every line of the log and every call to a desktop on its
behalf has, and a span where traces are sent. It counts what was asked by the template of its route,
how it was answered and how long that took; the bytes that pass through; and the screens that are
open. Nothing that it does can fail a request.
"""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qs

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller import tracing
from controller.metrics import Metrics
from workspace import logs

_WORKSPACE = "/v1/workspaces/{workspace_id}"
_SCREEN = f"{_WORKSPACE}/vnc"
# What passes through the controller as it comes, by what it is.
_STREAMS = {
    _SCREEN: "screen",
    f"{_WORKSPACE}/terminal": "terminal",
    f"{_WORKSPACE}/processes/{{job}}/stream": "job",
    f"{_WORKSPACE}/files": "file",
    f"{_WORKSPACE}/recording/file": "recording",
    "/v1/volumes/{name}/export": "volume",
}
_ID = re.compile(r"/v1/workspaces/([a-z0-9]{8,20})(?:/.*)?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GONE = 499


class Following:
    """The ASGI layer; see the module's head."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, is_traced: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._is_traced = is_traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        request = logs.Request(logs.request_id(scope["headers"]))
        if (match := _ID.fullmatch(scope["path"])) is not None:
            request.workspace_id = match[1]
        answering = _Answering(self._metrics, request, scope, receive, send)
        with logs.answering(request):
            if self._is_traced:
                with tracing.answering(scope, request) as span:
                    await self._answer(answering, span)
            else:
                await self._answer(answering, None)

    async def _answer(self, answering: _Answering, span: tracing.Span | None) -> None:
        try:
            await self._app(answering.scope, answering.receiving(), answering.send)
        finally:
            answering.end(span)


class _Answering:
    """One request while it is answered."""

    def __init__(
        self,
        metrics: Metrics,
        request: logs.Request,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._metrics = metrics
        self._request = request
        self.scope = scope
        self._receive, self._send = receive, send
        self._began = time.perf_counter()
        self._status = _GONE
        self._screen = ""  # the role that it is open with
        self._in: Counter | None = None
        self._out: Counter | None = None

    def receiving(self) -> Receive:
        """How what comes is read; of requests only files that are written are counted."""
        is_plain = self.scope["type"] == "http" and self.scope["method"] != "PUT"
        return self._receive if is_plain else self.receive

    async def receive(self) -> Message:
        message = await self._receive()
        if self._in is None and (kind := self._stream()) is not None:
            self._in = self._metrics.streamed_bytes.labels(kind, "in")
        if self._in is not None:
            self._in.inc(_size(message))
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.body", "websocket.send"):
            if self._out is not None:
                self._out.inc(_size(message))
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._status = message["status"]
            self._name(message)
            self._begin_out()
        elif kind == "websocket.accept":
            self._status = 101
            self._name(message)
            self._begin_out()
            self._open()
        elif kind == "websocket.close" and self._status == _GONE:
            self._status = 403  # refused, by a server that cannot say more
        await self._send(message)

    def end(self, span: tracing.Span | None) -> None:
        """All of it was sent, or its caller has gone."""
        own, request, scope = self._metrics, self._request, self.scope
        if self._screen:
            own.screens.labels(self._screen).dec()
        method = scope.get("method", "WEBSOCKET")
        if method not in _METHODS and scope["type"] == "http":
            method = "other"
        route = template(scope)
        own.requests.labels(method, route, str(self._status)).inc()
        if scope["type"] == "http":
            own.request_seconds.labels(method, route).observe(time.perf_counter() - self._began)
        if span is not None:
            tracing.tell(span, request, method=method, route=route, status=self._status)
        if request.error:
            own.errors.labels(request.error).inc()

    def _name(self, message: Message) -> None:
        """Have the answer say which request it is of."""
        own = (logs.REQUEST_ID, self._request.id.encode("ascii"))
        message["headers"] = [*message.get("headers", ()), own]

    def _open(self) -> None:
        if template(self.scope) != _SCREEN:
            return
        asked = parse_qs(self.scope["query_string"].decode("latin-1")).get("role")
        self._screen = "control" if asked == ["control"] else "view"
        self._metrics.screens.labels(self._screen).inc()

    def _begin_out(self) -> None:
        if self.scope.get("method", "GET") != "GET" or self._status >= 300:
            return
        if (kind := self._stream()) is not None:
            self._out = self._metrics.streamed_bytes.labels(kind, "out")

    def _stream(self) -> str | None:
        return _STREAMS.get(template(self.scope))


def template(scope: Scope) -> str:
    """The route that a request came to or was refused at: a template, never what was asked."""
    path = getattr(scope.get("route"), "path", None) or scope.get("rule")
    return "none" if path is None else str(path)


def _size(message: Message) -> int:
    """The bytes of what is sent or came; of text by its letters, which is near enough."""
    for part in ("body", "bytes", "text"):
        if value := message.get(part):
            return len(value)
    return 0
