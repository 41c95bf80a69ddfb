"""The servers that run in the desktop: which there are, and the bytes to one of them and back."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from pathlib import Path

from starlette.websockets import WebSocket

from workspace.desktopd.sockets import close, until_first
from workspace.errors import PortClosed
from workspace.ports import ListeningPort, port_of

CONNECT_SECONDS = 5.0
MOST_LISTED = 500
_LISTEN = "0A"  # as the kernel writes the state
_CHUNK_BYTES = 1 << 16
# What a server that listens for this machine only may have bound.
_OWN = ("127.0.0.1", "::1")


def listening() -> list[ListeningPort]:
    """The ports that something listens on, by number."""
    found: set[tuple[int, str]] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text("ascii").splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTEN:
                address, _, port = local.partition(":")
                found.add((int(port, 16), _address(address)))
    return [ListeningPort(port=port, address=where) for port, where in sorted(found)[:MOST_LISTED]]


def _address(text: str) -> str:
    """Words of four bytes in hexadecimal, each in the machine's own order."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return str(ipaddress.ip_address(packed))


async def connect(number: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to whatever listens on that port.

    Raises:
        InvalidRequest: it is no port.
        PortClosed: nothing listens there.
    """
    port = port_of(number)
    for address in _OWN:
        try:
            return await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_SECONDS)
        except (OSError, asyncio.TimeoutError):
            continue
    raise PortClosed(f"Nothing in the desktop listens on port {port}.")


async def serve(
    websocket: WebSocket, server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Carry bytes between an accepted WebSocket and a server until either ends; close both."""
    reader, writer = server

    async def down() -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await websocket.send_bytes(data)

    async def up() -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            writer.write(message.get("bytes") or b"")
            await writer.drain()

    try:
        ended = await until_first(down(), up())
        if ended.which == 0 or ended.error is not None:  # else it was the caller who ended it
            await close(websocket)
    finally:
        writer.transport.abort()
