"""WebSockets of a desktop, relayed: VNC, terminals, the output of jobs.

The desktop is asked first, with its own token: what it refuses, the caller is refused, as an HTTP
answer in Carrel's form. Then frames go both ways, each end reading only as fast as the other takes
them, until either closes; the other is closed with the same code. Who may look and who may act was
decided before; desktopd itself enforces the role.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from workspace import logs
from workspace.backends.base import Endpoint
from workspace.errors import DesktopLost, from_body

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0
MAX_MESSAGE_BYTES = 16 << 20
MAX_QUEUED = 4  # messages that lie here unread
_LOST = 1011
_SAID = frozenset({1002, 1003, 1007, 1008, 1009})  # the caller's own fault, by the desktop's word


async def relay(
    websocket: WebSocket, endpoint: Endpoint, path: str, begin: Callable[[], Awaitable[None]]
) -> None:
    """Relay ``websocket`` to ``path`` (with its query) of the desktop at ``endpoint``.

    ``begin`` is awaited once the desktop has agreed, before the caller gets anything.

    Raises:
        CarrelError: the desktop refused; the WebSocket has not been accepted.
    """
    offered: list[str] = websocket.scope.get("subprotocols", [])
    await pass_on(websocket, await dial(endpoint, path, offered), begin)


async def pass_on(
    websocket: WebSocket, upstream: ClientConnection, begin: Callable[[], Awaitable[None]]
) -> None:
    """Pass frames on both ways, between a caller who is not accepted yet and ``upstream``."""
    async with upstream:
        await begin()
        await websocket.accept(subprotocol=upstream.subprotocol)
        up = asyncio.ensure_future(_up(websocket, upstream))
        down = asyncio.ensure_future(_down(websocket, upstream))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            ends = await asyncio.gather(up, down, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def dial(
    endpoint: Endpoint, path: str, subprotocols: list[str], *, max_bytes: int = MAX_MESSAGE_BYTES
) -> ClientConnection:
    """A WebSocket of the desktop at ``endpoint``, whose messages are of ``max_bytes`` at most.

    Raises:
        CarrelError: it refused.
    """
    base = urlsplit(endpoint.url)
    target = "ws://desktop" if base.scheme == "unix" else f"ws://{base.netloc}{base.path}"
    options: dict[str, Any] = {  # Any: the library's keyword arguments
        "additional_headers": {"Authorization": f"Bearer {endpoint.token}", **_named()},
        "subprotocols": [Subprotocol(name) for name in subprotocols] or None,
        "compression": None,  # RFB and terminals: latency before size, and pictures do not shrink
        "open_timeout": OPEN_SECONDS,
        "close_timeout": CLOSE_SECONDS,
        "ping_interval": None,  # the caller's own connection is the one that is kept alive
        "max_size": max_bytes,
        "max_queue": MAX_QUEUED,
    }
    try:
        if base.scheme == "unix":
            return await unix_connect(base.path, target + path, **options)
        # With host and port given, a desktop cannot redirect us to another address.
        return await connect(
            target + path, host=base.hostname, port=base.port, proxy=None, **options
        )
    except InvalidStatus as error:
        answer = error.response
        raise from_body(answer.body, status=answer.status_code) from error
    except (OSError, asyncio.TimeoutError, InvalidHandshake, ValueError) as error:
        raise DesktopLost(f"The desktop does not answer: {error}") from error


def _named() -> dict[str, str]:
    request = logs.current()
    return {} if request is None else {"X-Request-Id": request.id}


async def _up(websocket: WebSocket, upstream: ClientConnection) -> None:
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            await upstream.send(message["text"] if data is None else data)
    except ConnectionClosed:
        return  # _down tells the caller


async def _down(websocket: WebSocket, upstream: ClientConnection) -> None:
    try:
        async for message in upstream:
            if isinstance(message, str):
                await websocket.send_text(message)
            else:
                await websocket.send_bytes(message)
    except WebSocketDisconnect:
        return
    except ConnectionClosed:  # it broke without a goodbye
        pass
    code = upstream.close_code or _LOST
    try:
        if code in (1000, 1005):  # 1005: it closed without saying a code
            await websocket.close(1000)
        elif code in _SAID or 3000 <= code < 5000:
            await websocket.close(code, upstream.close_reason or "")
        else:
            await websocket.close(_LOST, "The desktop went away.")
    except (RuntimeError, WebSocketDisconnect):  # the caller was first
        return
