"""The VNC byte stream, with control enforced: what may not be sent never reaches the server.

Bytes flow only as fast as the other side takes them, both ways. A person's input passes as long as
they have control; when that goes, for whatever reason, what they hold is released, and their stream
goes on as a viewer's. So it is when their connection ends.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.websockets import WebSocket

from workspace.desktopd.hands import Hands
from workspace.desktopd.rfb import ClientStream, ProtocolError
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


class Person:
    """A person's hands on one connection: a gate of :mod:`rfb`, a connection of :mod:`hands`."""

    def __init__(self, hands: Hands, grant: str, writer: asyncio.StreamWriter) -> None:
        self.grant = grant
        self.client = ClientStream(self)
        self._hands = hands
        self._writer = writer

    def admits(self) -> bool:
        return self._hands.control.holds(self.grant)

    def key(self, keysym: int, is_down: bool) -> None:
        self._hands.key(keysym, is_down)

    def pointer(self, buttons: int, x: int, y: int) -> None:
        self._hands.pointer(buttons, x, y)

    async def release(self) -> None:
        """Let go what is held; returns when the server's socket has taken all that was sent."""
        try:
            self._writer.transport.set_write_buffer_limits(high=0)  # drained is all gone
            self._writer.write(self.client.held.release())
            await self._writer.drain()
        except OSError:
            logger.info("The VNC server went away before its keys could be released.")


async def serve(
    websocket: WebSocket,
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    hands: Hands,
    grant: str | None,
) -> None:
    """Carry an accepted WebSocket to and from the VNC server until either ends; close both.

    With a ``grant`` its input passes while that is good; without, it is a viewer's.
    """
    reader, writer = server
    person = None if grant is None else Person(hands, grant, writer)
    client = ClientStream(None) if person is None else person.client

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

    if person is not None:
        hands.opened(person)
    try:
        ended = await until_first(show(), pass_on())
        if isinstance(ended.error, ProtocolError):
            await close(websocket, 1002, str(ended.error))
        elif ended.which == 0 and ended.error is None:
            await close(websocket)
    finally:
        try:
            if person is not None:
                await asyncio.wait_for(person.release(), CONNECT_SECONDS)
        except asyncio.TimeoutError:
            logger.info("The VNC server does not take what is released.")
        finally:
            writer.close()
            if person is not None:
                hands.closed(person)
