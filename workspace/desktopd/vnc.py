"""The VNC byte stream, with the role enforced: what a viewer may not send never reaches the server.

Bytes flow only as fast as the other side takes them, both ways. Whatever a controlling client held
when its connection ended, for whatever reason, is released.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.websockets import WebSocket

from workspace.desktopd.rfb import ClientStream, ProtocolError, Role
from workspace.desktopd.sockets import close, until_first
from workspace.errors import Unavailable

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
_CHUNK_BYTES = 1 << 16


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the X server's VNC socket.

    Raises:
        Unavailable: it does not answer.
    """
    try:
        return await asyncio.wait_for(asyncio.open_unix_connection(path), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError) as error:
        raise Unavailable("The desktop's VNC server does not answer.") from error


async def serve(
    websocket: WebSocket, role: Role, server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Carry an accepted WebSocket to and from the VNC server until either ends; close both."""
    reader, writer = server
    client = ClientStream(role)

    async def show() -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await websocket.send_bytes(data)

    async def pass_on() -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            if data is None:
                raise ProtocolError("send binary frames")
            writer.write(client.feed(data))
            await writer.drain()

    try:
        ended = await until_first(show(), pass_on())
        if isinstance(ended.error, ProtocolError):
            await close(websocket, 1002, str(ended.error))
        elif ended.which == 0 and ended.error is None:
            await close(websocket)
    finally:
        await _release(client, writer)


async def _release(client: ClientStream, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(client.held.release())
        await asyncio.wait_for(writer.drain(), CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError):
        logger.info("The VNC server went away before its keys could be released.")
    finally:
        writer.close()
