"""The bytes to a port of a desktop and back, as a socket of this process."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from controller.watch import dial
from workspace.backends.base import Endpoint
from workspace.errors import Unavailable

MOST_OF_ONE = 300  # tunnels to one desktop: each is three descriptors here
_CHUNK_BYTES = 1 << 16
_MAX_MESSAGE_BYTES = 1 << 18


class Tunnels:
    """Those that are open; ``aclose`` ends them."""

    def __init__(self) -> None:
        self._carrying: dict[asyncio.Task[None], Endpoint] = {}
        self._open: Counter[Endpoint] = Counter()

    async def open(self, endpoint: Endpoint, port: int) -> socket.socket:
        """One end of a connection to that port; who closes it ends the tunnel.

        Raises:
            PortClosed: nothing listens there.
            DesktopLost: the desktop does not answer.
            Unavailable: too many are open.
        """
        if self._open[endpoint] >= MOST_OF_ONE:
            raise Unavailable(
                "Too many connections to the servers of this desktop are open.",
                hint=f"There may be {MOST_OF_ONE} at once.",
            )
        near, far = socket.socketpair()
        self._open[endpoint] += 1
        try:
            upstream = await dial(endpoint, f"/ports/{port}", [], max_bytes=_MAX_MESSAGE_BYTES)
        except BaseException:
            near.close()
            far.close()
            self._closed(endpoint)
            raise
        near.setblocking(False)
        far.setblocking(False)
        task = asyncio.create_task(_carry(upstream, far), name=f"tunnel to port {port}")
        self._carrying[task] = endpoint
        task.add_done_callback(self._done)
        return near

    def _done(self, task: asyncio.Task[None]) -> None:
        self._closed(self._carrying.pop(task))

    def _closed(self, endpoint: Endpoint) -> None:
        self._open[endpoint] -= 1
        if not self._open[endpoint]:
            del self._open[endpoint]

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
