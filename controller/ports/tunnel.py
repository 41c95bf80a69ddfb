"""The bytes to a port of a desktop and back, as a socket of this process."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from controller.watch import dial
from workspace.backends.base import Endpoint

_CHUNK_BYTES = 1 << 16


class Tunnels:
    """Those that are open; ``aclose`` ends them."""

    def __init__(self) -> None:
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self, endpoint: Endpoint, port: int) -> socket.socket:
        """One end of a connection to that port; who closes it ends the tunnel.

        Raises:
            PortClosed: nothing listens there.
            DesktopLost: the desktop does not answer.
        """
        upstream = await dial(endpoint, f"/ports/{port}", [])
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        task = asyncio.create_task(_carry(upstream, far), name=f"tunnel to port {port}")
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return near

    async def aclose(self) -> None:
        tasks = list(self._carrying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(upstream: ClientConnection, far: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    async def up() -> None:
        while data := await loop.sock_recv(far, _CHUNK_BYTES):
            await upstream.send(data)

    async def down() -> None:
        async for data in upstream:
            await loop.sock_sendall(far, data if isinstance(data, bytes) else data.encode())

    ways = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        with suppress(OSError, ConnectionClosed):
            await asyncio.gather(*ways, return_exceptions=True)
        far.close()
        await upstream.close()
