"""Requests and WebSockets to a server in a desktop: with backpressure, and never retried."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from controller.ports.cleaning import Place, answer_fields, request_fields
from controller.ports.origins import Target
from controller.ports.tunnel import Tunnels
from controller.problems import CallerGone
from controller.watch import CLOSE_SECONDS, MAX_MESSAGE_BYTES, OPEN_SECONDS, pass_on
from workspace.backends.base import Endpoint
from workspace.errors import BadGateway, InvalidRequest, Unavailable
from workspace.http1 import Transport

ANSWER_SECONDS = 600.0  # from one piece of an answer to the next: servers hold long polls
SEND_SECONDS = 60.0
MOST_TRANSPORTS = 256
NOTE_SECONDS = 60.0  # a page asks a server a hundred times: that is one line of the log
MOST_NOTED = 10_000
_TIMEOUTS = {
    "connect": OPEN_SECONDS,
    "read": ANSWER_SECONDS,
    "write": SEND_SECONDS,
    "pool": OPEN_SECONDS,
}


class Forwarding:
    """What carries to the ports of all desktops; ``aclose`` at its end."""

    def __init__(self) -> None:
        self._tunnels = Tunnels()
        self._kept: OrderedDict[tuple[Endpoint, int], Transport] = OrderedDict()
        self._noted: OrderedDict[tuple[Target, str], float] = OrderedDict()

    async def aclose(self) -> None:
        for transport in self._kept.values():
            await transport.aclose()
        self._kept.clear()
        await self._tunnels.aclose()

    def is_new(self, target: Target, actor: str) -> bool:
        """Whether nobody has noted for a minute that ``actor`` uses that port."""
        noted = self._noted.get((target, actor))
        return noted is None or time.monotonic() - noted > NOTE_SECONDS

    def note(self, target: Target, actor: str) -> None:
        """It is in the log by now."""
        self._noted[target, actor] = time.monotonic()
        self._noted.move_to_end((target, actor))
        if len(self._noted) > MOST_NOTED:
            self._noted.popitem(last=False)

    async def http(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        endpoint: Endpoint,
        place: Place,
        path: bytes,
    ) -> None:
        """Answer a request as the server at ``place`` does; ``path`` with its query.

        Raises:
            PortClosed, DesktopLost, BadGateway: before anything was answered.
            CallerGone: it hung up.
        """
        body = _Body(scope, receive)
        fields = request_fields(scope, place)
        if body.is_chunked:
            fields.append((b"Transfer-Encoding", b"chunked"))
        request = httpx.Request(
            scope["method"],
            f"http://{place.host}",
            headers=fields,
            stream=body,
            extensions={"timeout": _TIMEOUTS, "target": path},
        )
        working = asyncio.ensure_future(self._exchange(request, send, endpoint, place))
        leaving = asyncio.ensure_future(body.until_gone())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_done = working.done()
            for task in (working, leaving):
                task.cancel()
            ends = await asyncio.gather(working, leaving, return_exceptions=True)
        if not is_done or isinstance(ends[0], ClientDisconnect):
            raise CallerGone
        if isinstance(ends[0], BaseException):
            raise ends[0]

    async def _exchange(
        self, request: httpx.Request, send: Send, endpoint: Endpoint, place: Place
    ) -> None:
        transport = await self._transport(endpoint, place.port)
        try:
            answer = await transport.handle_async_request(request)
        except httpx.TransportError as error:
            raise BadGateway(f"The server on port {place.port}: {error}.") from error
        try:
            status, path = answer.status_code, request.extensions["target"].decode("latin-1")
            fields = answer_fields(answer.headers.raw, place, path=path, status=status)
            await send({"type": "http.response.start", "status": status, "headers": fields})
            stream = answer.stream
            assert isinstance(stream, httpx.AsyncByteStream), "it came by an async transport"
            async for piece in stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:  # in the middle: its caller is to see that
            raise BadGateway(f"The server on port {place.port} broke off: {error}.") from error
        finally:
            await answer.aclose()

    async def _transport(self, endpoint: Endpoint, port: int) -> Transport:
        key = (endpoint, port)
        found = self._kept.pop(key, None) or Transport(
            dial=lambda: self._tunnels.open(endpoint, port)
        )
        self._kept[key] = found
        if len(self._kept) > MOST_TRANSPORTS:
            _, oldest = self._kept.popitem(last=False)
            await oldest.aclose()  # its idle connections; its requests go on
        return found

    async def websocket(
        self, websocket: WebSocket, *, endpoint: Endpoint, place: Place, path: bytes
    ) -> None:
        """Relay a WebSocket that has not been accepted to the server at ``place``.

        Raises:
            PortClosed, DesktopLost, BadGateway: before it was accepted.
        """
        scope = websocket.scope
        fields = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request_fields(scope, place)
        ]
        origin = next((value for name, value in fields if name == "origin"), None)
        more = [field for field in fields if field[0] not in ("Host", "origin")]
        offered: list[str] = scope.get("subprotocols", [])
        options: dict[str, Any] = {  # Any: the library's keyword arguments
            "additional_headers": more,
            "origin": Origin(origin) if origin else None,
            "subprotocols": [Subprotocol(name) for name in offered] or None,
            "user_agent_header": None,
            "compression": None,
            "open_timeout": OPEN_SECONDS,
            "close_timeout": CLOSE_SECONDS,
            "ping_interval": None,
            "max_size": MAX_MESSAGE_BYTES,
            "max_queue": 1,  # they are large, and of a server that nobody knows
            "proxy": None,
        }
        if not path.isascii() or b"#" in path:
            raise InvalidRequest("This path is written in a way that is not served.")
        try:
            sock = await self._tunnels.open(endpoint, place.port)
        except OSError as error:
            raise Unavailable("This controller has too many connections open.") from error
        try:
            upstream = await connect(f"ws://{place.host}{path.decode()}", sock=sock, **options)
        except InvalidStatus as error:
            sock.close()
            refusal = error.response
            await websocket.send_denial_response(
                Response(bytes(refusal.body or b""), refusal.status_code)
            )
            return
        except (OSError, asyncio.TimeoutError, WebSocketException, ValueError, EOFError) as error:
            sock.close()
            raise BadGateway(
                f"The server on port {place.port} opens no WebSocket: {error}"
            ) from error

        async def begin() -> None: ...

        await pass_on(websocket, upstream, begin)


class _Body(httpx.AsyncByteStream):
    """A request's body as it comes, and whether its caller is still there."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        names = {name for name, _ in scope["headers"]}
        self.is_chunked = b"transfer-encoding" in names
        self._has_one = self.is_chunked or b"content-length" in names
        self._receive = receive
        self._over = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = self._has_one
        try:
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                more = message.get("more_body", False)
                if piece := message.get("body"):
                    yield piece
        finally:
            self._over.set()

    async def until_gone(self) -> None:
        """Return once the caller has hung up, if all that it sent has been read."""
        await self._over.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
